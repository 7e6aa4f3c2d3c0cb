//! The opening of an encrypted link, seen from either side, and its records.
#![no_main]

use std::sync::LazyLock;

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use rumormill::Network;
use rumormill::net::codec;
use rumormill::net::secure::{
    Accepting, Dialling, KnownSeeds, NetworkKey, NetworkKeys, Secret, Security,
};

static PROCESSES: LazyLock<[Security; 2]> = LazyLock::new(|| {
    let key = NetworkKey::fresh().expect("randomness");
    [(); 2].map(|()| {
        let secret = Secret::fresh().expect("randomness");
        let seeds = KnownSeeds::of(&Network::without_seeds("fuzz"));
        Security::new(NetworkKeys::of(key.clone()), secret, seeds)
    })
});

fuzz_target!(|data: &[u8]| {
    let Some((part, data)) = data.split_first() else { return };
    let [one, other] = &*PROCESSES;
    let prologue = codec::prologue();
    if part % 4 == 0 {
        assert!(Accepting::begin(one, &prologue, data).is_err(), "nobody guesses the key");
        return;
    }
    let (dialling, first) = Dialling::begin(one, &prologue).expect("a key");
    if part % 4 == 1 {
        assert!(dialling.finish(data, b"hello").is_err());
        return;
    }
    let (accepting, second) = Accepting::begin(other, &prologue, &first).expect("the same key");
    if part % 4 == 2 {
        assert!(accepting.finish(data).is_err());
        return;
    }
    let (_, mut session) = dialling.finish(&second, b"hello").expect("its answer");
    let (mut sealed, mut plain) = (BytesMut::from(data), BytesMut::new());
    while let Ok(true) = session.opener.open(&mut sealed, &mut plain) {
        panic!("nobody guesses a record");
    }
});
