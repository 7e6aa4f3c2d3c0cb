//! The opening of an encrypted link, seen from either side, and its records: of strangers, who can
//! only be refused, and of members, who may say anything in it.
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

/// A stranger's bytes in place of one part of the opening.
fn stranger(part: u8, data: &[u8]) {
    let [one, other] = &*PROCESSES;
    let prologue = codec::prologue();
    if part == 0 {
        assert!(Accepting::begin(one, &prologue, data).is_err(), "nobody guesses the key");
        return;
    }
    let (dialling, first) = Dialling::begin(one, &prologue).expect("a key");
    if part == 1 {
        assert!(dialling.finish(data, b"hello").is_err());
        return;
    }
    let (accepting, second) = Accepting::begin(other, &prologue, &first).expect("the same key");
    if part == 2 {
        assert!(accepting.finish(data).is_err());
        return;
    }
    let (_, mut session) = dialling.finish(&second, b"hello").expect("its answer");
    let (mut sealed, mut plain) = (BytesMut::from(data), BytesMut::new());
    while let Ok(true) = session.opener.open(&mut sealed, &mut plain) {
        panic!("nobody guesses a record");
    }
}

/// What a member says in its opening, and in a record behind it.
fn member(says: &[u8], pieces: usize) {
    let [one, other] = &*PROCESSES;
    let prologue = codec::prologue();
    let (dialling, first) = Dialling::begin(one, &prologue).expect("a key");
    let (accepting, second) = Accepting::begin(other, &prologue, &first).expect("the same key");
    let Ok((third, mut ours)) = dialling.finish(&second, says) else { return };
    let (heard, mut theirs) = accepting.finish(&third).expect("it was not changed");
    assert_eq!(heard, says);
    if let Ok((identity, hello)) = codec::decode_inner_hello(&heard) {
        assert_eq!(theirs.is_with(&identity), identity == one.identity());
        let _ = other.objection_to(&hello, &identity);
    }
    // The records come in pieces, and are the same behind as in front.
    let mut sealed = Vec::new();
    for record in says.chunks(pieces) {
        ours.sealer.seal(record, &mut sealed).expect("short");
    }
    let (mut arrived, mut plain) = (BytesMut::new(), BytesMut::new());
    for piece in sealed.chunks(pieces) {
        arrived.extend_from_slice(piece);
        while theirs.opener.open(&mut arrived, &mut plain).expect("the next record") {}
    }
    assert_eq!(plain, says);
    let mut frames = codec::opening_frames();
    while let Ok(Some(frame)) = codec::next_frame(&mut frames, &mut plain) {
        let _ = codec::decode_answer(&frame);
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((part, data)) = data.split_first() else { return };
    match part % 8 {
        part @ 0..4 => stranger(part, data),
        _ => member(data, usize::from(part >> 3) + 1),
    }
});
