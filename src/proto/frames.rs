//! Cuts long lists into frames, so that no message is too long and those of others get their turn in
//! between.
//!
//! What must stay true: each item is in one frame, in its order, and a frame is longer than its
//! limit only if it holds a single item that is.

/// Cuts a list into frames whose items have a size of at most `limit` together; an item that is
/// larger has a frame of its own. An empty list has no frame.
///
/// Frames are made as they are asked for, so that a long list need not be copied as a whole.
pub fn frames<T, F: FromIterator<T>>(
    all: impl IntoIterator<Item = T>,
    limit: usize,
    size: impl Fn(&T) -> usize,
) -> impl Iterator<Item = F> {
    let mut rest = all.into_iter().peekable();
    std::iter::from_fn(move || {
        let first = rest.next()?;
        let mut used = size(&first);
        let others = std::iter::from_fn(|| {
            rest.next_if(|item| {
                used = used.saturating_add(size(item));
                used <= limit
            })
        });
        Some(std::iter::once(first).chain(others).collect())
    })
}

/// Tells with each frame whether more follow. If there is none, one empty frame says so.
pub fn with_more<F: Default>(frames: impl Iterator<Item = F>) -> impl Iterator<Item = (F, bool)> {
    let mut rest = frames.peekable();
    let mut empty = Some(F::default());
    std::iter::from_fn(move || {
        let frame = rest.next().or_else(|| empty.take())?;
        empty = None;
        Some((frame, rest.peek().is_some()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(items: &[usize], limit: usize) -> Vec<(Vec<usize>, bool)> {
        with_more(frames(items.iter().copied(), limit, |size| *size)).collect()
    }

    #[test]
    fn frames_hold_what_fits_and_a_large_item_has_one_of_its_own() {
        type Case<'a> = (&'a [usize], &'a [(&'a [usize], bool)]);
        let table: &[Case<'_>] = &[
            (&[], &[(&[], false)]),
            (&[1, 2, 3], &[(&[1, 2, 3], false)]),
            (&[1, 2, 4], &[(&[1, 2], true), (&[4], false)]),
            (&[3, 3, 3, 3], &[(&[3, 3], true), (&[3, 3], false)]),
            (&[1, 9, 1], &[(&[1], true), (&[9], true), (&[1], false)]),
            (&[9, usize::MAX, 9], &[(&[9], true), (&[usize::MAX], true), (&[9], false)]),
        ];
        for (items, expected) in table {
            let expected: Vec<_> =
                expected.iter().map(|(frame, more)| (frame.to_vec(), *more)).collect();
            assert_eq!(cut(items, 6), expected, "{items:?}");
        }
    }

    #[test]
    fn an_empty_list_has_no_frame_of_its_own() {
        assert_eq!(frames::<u8, Vec<u8>>([], 2, |_| 1).count(), 0);
    }
}
