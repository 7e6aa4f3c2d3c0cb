//! The files that a user writes: CONFIG and the key file.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use rumormill::config::parse_seeds;
use rumormill::net::secure::{NetworkKeys, Secret};

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    if let Err(error) = parse_seeds(Path::new("c"), &text) {
        assert!(!error.to_string().contains('\n'), "one line: {error}");
    }
    if let Err(error) = NetworkKeys::parse(&text) {
        assert!(!error.to_string().contains('\n'), "one line: {error}");
    }
    if let Ok(secret) = Secret::parse(&text) {
        assert_eq!(secret.line(), text.trim().to_lowercase());
    }
});
