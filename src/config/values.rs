//! Reads the values of single arguments, and says in a few words what is wrong with a bad one.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The shortest interval or timeout. With a shorter one, a timer would do nothing but fire.
const SHORTEST: Duration = Duration::from_millis(1);

/// The shortest time between two pings. A hundred a second to each neighbour are a load already;
/// with a thousand a second, pings would be all there is.
const SHORTEST_PING: Duration = Duration::from_millis(10);

/// The shortest silence that may raise a suspicion. With a shorter one, a busy machine would
/// suspect everybody again and again, and log little else.
const SHORTEST_SILENCE: Duration = Duration::from_millis(100);

/// The longest interval or timeout. A longer one is a mistake in the unit.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Reads an IP address, IPv6 with or without brackets. Names are refused, because none is looked
/// up.
pub(super) fn ip(text: &str) -> Result<IpAddr, String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let parsed = bare.parse::<IpAddr>();
    let ip = parsed.map_err(|_| "not an IP address; write one such as 127.0.0.1 or ::1")?;
    Ok(ip.to_canonical())
}

/// Bytes of a network's name: it goes with every hello, whose length is bounded.
const LONGEST_NAME: usize = 64;

/// Reads the name of a network.
pub(super) fn network(text: &str) -> Result<String, String> {
    let fits = !text.trim().is_empty() && text.len() <= LONGEST_NAME;
    match fits && !text.chars().any(char::is_control) {
        true => Ok(text.to_owned()),
        false => Err("not a name; write 1 to 64 bytes that can be printed".into()),
    }
}

/// Reads the address of another process.
pub(super) fn peer(text: &str) -> Result<SocketAddr, String> {
    super::parse_address(text.trim()).map_err(|why| format!("it {why}"))
}

/// Reads the address at which HTTP is served.
pub(super) fn http(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "not an address and a port; write 127.0.0.1:8000 or [::1]:8000".into())
}

/// Reads an interval or timeout, which is never zero.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    at_least(SHORTEST, text)
}

/// Reads the time between two pings.
pub(super) fn ping(text: &str) -> Result<Duration, String> {
    at_least(SHORTEST_PING, text)
}

/// Reads the silence after which somebody is suspected.
pub(super) fn silence(text: &str) -> Result<Duration, String> {
    at_least(SHORTEST_SILENCE, text)
}

fn at_least(shortest: Duration, text: &str) -> Result<Duration, String> {
    let trimmed = text.trim();
    if trimmed.is_empty() || trimmed.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return Err("a duration needs a unit; write 500ms, 5s or 1m".into());
    }
    let parsed = humantime::parse_duration(trimmed);
    let duration = parsed.map_err(|_| "not a duration; write 500ms, 5s or 1m")?;
    if duration < shortest {
        return Err(format!("too short; write {}ms or more", shortest.as_millis()));
    }
    if duration > LONGEST {
        return Err("too long; write 30d or less".into());
    }
    Ok(duration)
}

/// Reads a time to wait, which may be zero.
pub(super) fn wait(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text.trim()) {
        Ok(Duration::ZERO) if text.trim() != "0" => Ok(Duration::ZERO),
        _ => duration(text),
    }
}

/// Reads a number of bytes, at least one.
pub(super) fn bytes(text: &str) -> Result<usize, String> {
    const HOW: &str = "write a number of bytes, such as 1000000, 512MiB or 2GiB";
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim_start() {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return Err(format!("not a number of bytes; {HOW}")),
    };
    let number = number.parse::<u64>().map_err(|_| format!("not a number of bytes; {HOW}"))?;
    let bytes = number.checked_mul(1 << shift).and_then(|bytes| usize::try_from(bytes).ok());
    match bytes {
        None => Err("more than this machine can count; write less, such as 2GiB".into()),
        Some(0) => Err("nothing could be written; write at least 1".into()),
        Some(bytes) => Ok(bytes),
    }
}

/// Reads the exponent γ of the degree distribution.
pub(super) fn exponent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(exponent) if exponent > 2.0 && exponent <= 3.0 => Ok(exponent),
        _ => Err("the exponent must be over 2 and at most 3; write 2.5".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit_and_sense() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("1m"), Ok(Duration::from_secs(60)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7_200)));
        for (text, says) in [
            ("5", "unit"),
            ("0", "unit"),
            ("1.5", "unit"),
            ("", "unit"),
            ("0s", "too short"),
            ("1us", "too short"),
            ("31d", "too long"),
            ("99999999999999999999s", "not a duration"),
            ("-5s", "not a duration"),
            ("5 apples", "not a duration"),
        ] {
            let error = duration(text).unwrap_err();
            assert!(error.contains(says), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_wait_may_be_zero_and_needs_a_unit_all_the_same() {
        assert_eq!(wait("0ms"), Ok(Duration::ZERO));
        assert_eq!(wait("0s"), Ok(Duration::ZERO));
        assert_eq!(wait("160ms"), Ok(Duration::from_millis(160)));
        for text in ["0", "160", "-1s", "", "31d"] {
            assert!(wait(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_network_has_a_name_that_fits_a_hello() {
        assert_eq!(network("blue 2"), Ok("blue 2".to_owned()));
        for text in ["", " ", "a\n", &"a".repeat(65)] {
            assert!(network(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn bytes_are_a_number_with_or_without_a_unit() {
        for (text, expected) in [
            ("1", 1),
            ("1000000", 1_000_000),
            ("3KiB", 3 << 10),
            ("512MiB", 512 << 20),
            (" 1 GiB ", 1 << 30),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text:?}");
        }
        for (text, says) in [
            ("", "512MiB"),
            ("GiB", "512MiB"),
            ("1GB", "512MiB"),
            ("1.5GiB", "512MiB"),
            ("-1", "512MiB"),
            ("many", "512MiB"),
            ("0", "at least 1"),
            ("0GiB", "at least 1"),
            ("18446744073709551615GiB", "write less"),
            ("99999999999999999999", "512MiB"),
        ] {
            let error = bytes(text).unwrap_err();
            assert!(error.contains(says), "{text:?}: {error}");
        }
    }

    #[test]
    fn exponents_are_over_2_and_at_most_3() {
        assert_eq!(exponent("3"), Ok(3.0));
        assert_eq!(exponent("2.01"), Ok(2.01));
        for text in ["2", "3.01", "-2.5", "NaN", "inf", "x", ""] {
            assert!(exponent(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn addresses_are_numbers_in_one_spelling() {
        for (text, expected) in [
            ("127.0.0.1", "127.0.0.1"),
            ("::1", "::1"),
            ("[::1]", "::1"),
            ("::ffff:127.0.0.1", "127.0.0.1"),
        ] {
            assert_eq!(ip(text).unwrap().to_string(), expected);
        }
        for text in ["localhost", "127.0.0.1:5000", "", "[::1", "1.2.3"] {
            assert!(ip(text).is_err(), "{text:?}");
        }
    }
}
