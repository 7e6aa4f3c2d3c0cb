//! The files of state that another program wrote, or a disk spoiled.
#![no_main]

use std::fs;
use std::panic;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use rumormill::storage::{OpenReplica, OpenStore};

/// A sound file of each kind, to be spoiled.
static SOUND: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
    // redb panics on pages that contradict each other, which is caught. libFuzzer would take any
    // panic for a crash, so it is told only of those of other code.
    let found = panic::take_hook();
    panic::set_hook(Box::new(move |what| {
        if !what.location().is_some_and(|place| place.file().contains("/redb-")) {
            found(what);
        }
    }));
    let dir = tempfile::tempdir().expect("a directory");
    drop(OpenStore::open(dir.path()).expect("a new file"));
    drop(OpenReplica::open(dir.path()).expect("a new file"));
    ["registry.redb", "store.redb"].map(|name| fs::read(dir.path().join(name)).expect("made"))
});

/// Bytes of the pages in front of a new file that hold something; the others are empty.
const USED: usize = 64 << 10;

fuzz_target!(|data: &[u8]| {
    let Some((kind, data)) = data.split_first() else { return };
    let mut file = SOUND[usize::from(kind % 2)].clone();
    if kind & 2 == 0 {
        file = data.to_vec();
    } else {
        // Two bytes say where a byte goes, and one which.
        let used = file.len().min(USED);
        for change in data.chunks_exact(3) {
            let place = usize::from(u16::from_le_bytes([change[0], change[1]]));
            file[place % used] = change[2];
        }
    }
    let dir = tempfile::tempdir().expect("a directory");
    if kind % 2 == 0 {
        fs::write(dir.path().join("registry.redb"), file).expect("written");
        let _ = OpenStore::open(dir.path());
    } else {
        fs::write(dir.path().join("store.redb"), file).expect("written");
        let _ = OpenReplica::open(dir.path());
    }
});
