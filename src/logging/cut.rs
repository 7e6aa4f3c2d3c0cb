//! Makes a record one line that fits its limit: replaces control characters, and cuts what is too
//! long with `...(+N more)`.
//!
//! What must stay true: no line is over its limit, and no record can break its line.

use std::borrow::Cow;

/// Appends the record to `to` as one line of at most `limit` bytes, its newline included.
///
/// If the cut falls into a list (`key=a,b,c`), it is made between two elements, and N is the number
/// of elements left out. Otherwise it is made between two characters, and N is a number of bytes.
pub(super) fn line(record: &str, limit: usize, to: &mut String) {
    let record = printable(record);
    let room = limit.saturating_sub(1); // the newline
    if record.len() <= room {
        to.push_str(&record);
        to.push('\n');
        return;
    }
    let longest_mark = mark(record.len()).len(); // N is never more than that
    let cut = floor_char_boundary(&record, room.saturating_sub(longest_mark));
    let (cut, more) = match list_around(&record, cut) {
        Some(start) => between_elements(&record, start, cut),
        None => (cut, record.len() - cut),
    };
    to.push_str(record.get(..cut).unwrap_or_default());
    to.push_str(&mark(more));
    to.push('\n');
}

fn mark(more: usize) -> String {
    format!("...(+{more} more)")
}

/// Replaces control characters, so that nothing in a record can break its line or drive a terminal.
fn printable(record: &str) -> Cow<'_, str> {
    // Nearly all records are plain ASCII, which is faster to check.
    let plain = record.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if !plain && record.chars().any(char::is_control) {
        Cow::Owned(record.chars().map(|c| if c.is_control() { ' ' } else { c }).collect())
    } else {
        Cow::Borrowed(record)
    }
}

/// The last character boundary at or before `at`.
fn floor_char_boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0)
}

/// Where the list begins in which position `at` lies: the unquoted value of a `key=a,b,c`. None if
/// `at` lies in no list.
fn list_around(record: &str, at: usize) -> Option<usize> {
    let (start, end) = word_around(record, at)?;
    let value = start + record.get(start..end)?.find('=')? + 1;
    let list = record.get(value..end)?;
    (value <= at && !list.starts_with('"') && list.contains(',')).then_some(value)
}

/// The start and end of the word in which position `at` lies. A space within quotes ends no word.
fn word_around(record: &str, at: usize) -> Option<(usize, usize)> {
    let mut start = 0;
    let mut quoted = false;
    let mut escaped = false;
    for (i, c) in record.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' if quoted => quoted = false,
            '"' if record.get(..i).is_some_and(|before| before.ends_with('=')) => quoted = true,
            ' ' if !quoted && i >= at => return (i > at).then_some((start, i)),
            ' ' if !quoted => start = i + 1,
            _ => {}
        }
    }
    Some((start, record.len()))
}

/// The last end of an element at or before `at`, and the number of elements behind it.
fn between_elements(record: &str, start: usize, at: usize) -> (usize, usize) {
    let list = record.get(start..).unwrap_or_default();
    let list = list.split(' ').next().unwrap_or_default();
    let commas = || list.match_indices(',').map(|(i, _)| start + i);
    let kept = commas().filter(|&comma| comma <= at).count();
    let cut = commas().take_while(|&comma| comma <= at).last().unwrap_or(start);
    (cut, commas().count() + 1 - kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(record: &str, limit: usize) -> String {
        let mut line = String::new();
        super::line(record, limit, &mut line);
        line
    }

    #[test]
    fn a_short_record_stays_as_it_is() {
        assert_eq!(line("peer list size=3", 17), "peer list size=3\n");
        assert_eq!(line("", 10), "\n");
    }

    #[test]
    fn control_characters_cannot_break_the_line() {
        assert_eq!(line("a\nb\r\u{1b}[31mc\u{85}d", 100), "a b  [31mc d\n");
    }

    #[test]
    fn a_list_is_cut_between_elements_and_counts_elements() {
        // There is room for 60 - 1 - "...(+91 more)" = 46 bytes, one byte short of the end of the
        // fourth.
        let record = format!("x peers={} incarnation=7", ["127.0.0.1"; 8].join(","));
        assert_eq!(line(&record, 60), "x peers=127.0.0.1,127.0.0.1,127.0.0.1...(+5 more)\n");
        assert_eq!(
            line(&record, 62),
            "x peers=127.0.0.1,127.0.0.1,127.0.0.1,127.0.0.1...(+4 more)\n"
        );
    }

    #[test]
    fn a_list_whose_first_element_does_not_fit_counts_all() {
        assert_eq!(
            line("x peers=aaaaaaaaaaaa,bbbbbbbbbbbbbbbbbbbbb", 26),
            "x peers=...(+2 more)\n"
        );
    }

    #[test]
    fn anything_else_is_cut_between_characters_and_counts_bytes() {
        assert_eq!(line(&"é".repeat(20), 20), "ééé...(+34 more)\n");
        let quoted = format!("x reason=\"{}\"", "a, b, ".repeat(10));
        assert_eq!(line(&quoted, 40), "x reason=\"a, b, a, b, a, b...(+45 more)\n");
    }

    #[test]
    fn a_cut_behind_a_list_counts_bytes() {
        let record = format!("x peers=a,b,c text={}", "z".repeat(40));
        assert_eq!(line(&record, 40), "x peers=a,b,c text=zzzzzzz...(+33 more)\n");
    }

    proptest! {
        #[test]
        fn every_line_fits_ends_once_and_keeps_what_is_before_the_cut(
            record in "[a-c=,\" \\\\é\\n]{0,200}",
            limit in 20usize..120,
        ) {
            let cut = line(&record, limit);
            prop_assert!(cut.len() <= limit, "{} bytes: {cut:?}", cut.len());
            prop_assert!(cut.ends_with('\n') && cut.matches('\n').count() == 1);
            let plain = printable(&record);
            let body = cut.trim_end_matches('\n');
            if plain.len() < limit {
                prop_assert_eq!(body, plain.as_ref());
            } else {
                let (kept, more) = body.rsplit_once("...(+").unwrap();
                prop_assert!(plain.starts_with(kept));
                let more: usize = more.strip_suffix(" more)").unwrap().parse().unwrap();
                prop_assert!(more >= 1 && more <= plain.len() - kept.len());
            }
        }

        #[test]
        fn a_cut_list_accounts_for_every_element(count in 1usize..300, limit in 60usize..2_000) {
            let peers: Vec<String> = (0..count).map(|i| format!("10.0.0.1:{}", 1_000 + i)).collect();
            let record = format!("peer list received size={count} peers={}", peers.join(","));
            let cut = line(&record, limit);
            let body = cut.trim_end_matches('\n');
            let (_, list) = body.split_once("peers=").unwrap();
            let (kept, left_out) = match list.split_once("...(+") {
                Some((kept, more)) => (kept, more.strip_suffix(" more)").unwrap().parse().unwrap()),
                None => (list, 0usize),
            };
            let kept: Vec<&str> = kept.split(',').filter(|e| !e.is_empty()).collect();
            prop_assert_eq!(kept.len() + left_out, count);
            prop_assert!(kept.iter().zip(&peers).all(|(a, b)| a == b));
        }
    }
}
