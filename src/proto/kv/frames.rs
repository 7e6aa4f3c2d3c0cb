//! Cutting long lists into frames.

/// Bytes of writes or versions in one frame, roughly. Frames of others get their turn in between.
pub(super) const FRAME: usize = 256 << 10;

/// Cuts items into frames of about [`FRAME`] bytes; each frame holds at least one item.
pub(super) fn frames<T>(all: Vec<T>, size: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut frames = Vec::new();
    let (mut frame, mut bytes) = (Vec::new(), 0);
    for item in all {
        let more = size(&item);
        if !frame.is_empty() && bytes + more > FRAME {
            frames.push(std::mem::take(&mut frame));
            bytes = 0;
        }
        bytes += more;
        frame.push(item);
    }
    if !frame.is_empty() {
        frames.push(frame);
    }
    frames
}

/// Each frame with whether more follow it; at least one frame, perhaps empty.
pub(super) fn last_is_last<T>(mut frames: Vec<Vec<T>>) -> impl Iterator<Item = (Vec<T>, bool)> {
    let last = frames.pop().unwrap_or_default();
    frames.into_iter().map(|frame| (frame, true)).chain([(last, false)])
}
