//! As much of HTTP/1.1 as the tests' own clients need.

/// Head, in lower case, and body of an answer.
pub fn split(answer: &[u8]) -> Option<(String, String)> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    let body = &answer[end + 4..];
    let body = if head.contains("transfer-encoding: chunked") { whole(body)? } else { body.into() };
    Some((head, String::from_utf8(body).ok()?))
}

/// A body that came in chunks; none if its end is missing.
fn whole(mut chunks: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = chunks.windows(2).position(|two| two == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&chunks[..end]).ok()?, 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(chunks.get(end + 2..end + 2 + size)?);
        chunks = &chunks[end + 2 + size + 2..];
    }
}
