//! The token that clients of HTTP have to show, read from its file.
//!
//! What must stay true: no error and no debug output shows the token, and a file that others can
//! read is refused, because what stands in it is then no secret.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Characters of a token at least: with fewer it could be found by trying, since nobody counts the
/// attempts.
const MIN_TOKEN: usize = 16;
/// Characters of a token at most: clients send it in a header of each request.
const MAX_TOKEN: usize = 1_024;
/// Bytes of the file at most: a token with room for blanks around it. It stops the reading of
/// `/dev/zero`, too.
const MAX_FILE: u64 = 4_096;
/// The permissions of a file's group and of all others.
const OF_OTHERS: u32 = 0o077;

/// A token that clients of HTTP have to show.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The token itself, visible ASCII characters.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(not shown)")
    }
}

/// A mistake in the file of the token: what is wrong, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("{}: cannot read the HTTP token: {source}; name a readable file that holds it", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// Others than the file's owner can read or change it.
    #[error("{}: others can read or change the HTTP token (mode {mode:04o}); chmod 600 the file, and take another token if anybody may have read this one", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file does not hold exactly one token.
    #[error("{}: {why}; write one line of {MIN_TOKEN} to {MAX_TOKEN} visible ASCII characters into it, such as openssl rand -hex 32 prints", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// What is wrong with its contents.
        why: &'static str,
    },
}

/// Reads the token that a file holds.
///
/// # Errors
///
/// See [`TokenError`]; each names the file.
pub fn read_token(path: &Path) -> Result<Token, TokenError> {
    let unreadable = |source| TokenError::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    // Ask the opened file, not its path: another file could stand there by now.
    let mode = file.metadata().map_err(unreadable)?.mode() & 0o7777;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if mode & OF_OTHERS != 0 {
        return Err(TokenError::Exposed { path: path.to_owned(), mode });
    }
    token_of(&bytes).map_err(|why| TokenError::Bad { path: path.to_owned(), why })
}

fn token_of(bytes: &[u8]) -> Result<Token, &'static str> {
    if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_FILE) {
        return Err("it is too long for an HTTP token");
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return Err("it is not text") };
    let text = text.trim();
    if text.is_empty() {
        return Err("it holds no HTTP token");
    }
    if text.lines().count() > 1 {
        return Err("it has several lines");
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("the HTTP token has a character that is a blank or not ASCII");
    }
    match text.len() {
        ..MIN_TOKEN => Err("the HTTP token is too short"),
        MIN_TOKEN..=MAX_TOKEN => Ok(Token(text.to_owned())),
        _ => Err("the HTTP token is too long"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_token_is_one_line_of_visible_ascii() {
        for text in ["0123456789abcdef", " \t0123456789abcdef\r\n", "\n~!0123456789abcdef\n\n"] {
            let token = token_of(text.as_bytes()).unwrap();
            assert_eq!(token.text(), text.trim());
            assert!(!format!("{token:?}").contains("0123"), "{token:?}");
        }
        assert!(token_of("x".repeat(MAX_TOKEN).as_bytes()).is_ok());
        for (bytes, says) in [
            (&b""[..], "no HTTP token"),
            (b" \n\t\n", "no HTTP token"),
            (b"0123456789abcde", "too short"),
            (b"0123456789abcdef\n0123456789abcdef", "several lines"),
            (b"0123456789abcdef 0123456789abcdef", "blank"),
            ("0123456789abcdef\u{e9}".as_bytes(), "not ASCII"),
            (b"0123456789abcdef\x07x", "not ASCII"),
            (b"0123456789abcdef\xff", "not text"),
            ("x".repeat(MAX_TOKEN + 1).as_bytes(), "too long"),
            ("x".repeat(10_000).as_bytes(), "too long"),
        ] {
            let why = token_of(bytes).unwrap_err();
            assert!(why.contains(says), "{:?}: {why}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_file_that_others_can_read_or_that_cannot_be_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "0123456789abcdef").unwrap();
        for mode in [0o640, 0o604, 0o620, 0o601, 0o666] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = read_token(&path).unwrap_err();
            assert!(matches!(error, TokenError::Exposed { .. }), "{mode:o}: {error}");
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
        for mode in [0o600, 0o400] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read_token(&path).unwrap().text(), "0123456789abcdef");
        }
        for path in [dir.path().join("absent"), dir.path().to_owned()] {
            let error = read_token(&path).unwrap_err().to_string();
            assert!(error.starts_with(path.to_str().unwrap()), "{error}");
            assert!(error.contains("cannot read"), "{error}");
        }
    }
}
