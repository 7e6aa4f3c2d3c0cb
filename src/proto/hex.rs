//! Bytes as hexadecimal digits.

use std::fmt;

/// Shows bytes as lower-case hexadecimal digits, two for each.
#[derive(Clone, Copy, Debug)]
pub struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The bytes that `digits` stand for; none if a character is no hexadecimal digit, or if the number
/// of digits is odd.
pub fn parse(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits
        .as_bytes()
        .chunks_exact(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_and_nothing_else_is_taken() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(parse(&Hex(&bytes).to_string()), Some(bytes));
        assert_eq!(parse("0aFf"), Some(vec![10, 255]));
        for wrong in ["0", "0g", "é"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
