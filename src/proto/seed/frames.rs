//! Long lists are cut into frames.

/// Members in one frame of a list.
pub(super) const MEMBERS_A_FRAME: usize = 4_096;

/// Cuts a list into frames, as they are asked for, each with whether more follow; an empty list is one
/// empty frame.
pub(super) fn frames<T, F: FromIterator<T>>(
    all: impl IntoIterator<Item = T>,
    size: usize,
) -> impl Iterator<Item = (F, bool)> {
    let mut rest = all.into_iter().peekable();
    let mut done = false;
    std::iter::from_fn(move || {
        if done {
            return None;
        }
        let frame = rest.by_ref().take(size).collect();
        done = rest.peek().is_none();
        Some((frame, !done))
    })
}
