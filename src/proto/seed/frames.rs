//! Long lists are cut into frames.

use crate::proto::machine::Conn;
use crate::proto::message::{Addr, ToPeer};
use crate::proto::registry::Record;
use crate::proto::turn::SeedTurn;

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

/// Tells peers of records.
pub(super) fn update(
    turn: &mut SeedTurn<'_>,
    peers: &[Conn],
    records: impl IntoIterator<Item = (Addr, Record)>,
) {
    for (records, _) in frames(records, MEMBERS_A_FRAME) {
        turn.send_many(peers.to_vec(), ToPeer::Update(records));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_cut_into_frames_and_an_empty_one_is_one_empty_frame() {
        let cut = |count: u8| frames::<u8, Vec<u8>>(0..count, 2).collect::<Vec<_>>();
        assert_eq!(cut(0), [(vec![], false)]);
        assert_eq!(cut(2), [(vec![0, 1], false)]);
        assert_eq!(cut(3), [(vec![0, 1], true), (vec![2], false)]);
    }
}
