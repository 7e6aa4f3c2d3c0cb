//! The files of state that another program wrote, or a disk spoiled.
#![no_main]

use std::fs;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use rumormill::storage::{OpenReplica, OpenStore};

/// A sound file of each kind, to be spoiled.
static SOUND: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a directory");
    drop(OpenStore::open(dir.path()).expect("a new file"));
    drop(OpenReplica::open(dir.path()).expect("a new file"));
    ["registry.redb", "store.redb"].map(|name| fs::read(dir.path().join(name)).expect("made"))
});

fuzz_target!(|data: &[u8]| {
    let dir = tempfile::tempdir().expect("a directory");
    let Some((kind, data)) = data.split_first() else { return };
    let mut file = SOUND[usize::from(kind % 2)].clone();
    if kind & 2 == 0 {
        file = data.to_vec();
    } else {
        // Three bytes say where a byte goes, and one which.
        for change in data.chunks_exact(4) {
            let place = u32::from_le_bytes([change[0], change[1], change[2], 0]) as usize;
            let length = file.len();
            file[place % length] = change[3];
        }
    }
    let name = ["registry.redb", "store.redb"][usize::from(kind % 2)];
    fs::write(dir.path().join(name), file).expect("written");
    let _ = OpenStore::open(dir.path());
    let _ = OpenReplica::open(dir.path());
});
