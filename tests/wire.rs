//! The wire format stays what it is, and no bytes from the network panic or allocate beyond limits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use rumormill::net::codec::{self, Opening};
use rumormill::proto::kv::clock::{Clock, Dot, Seen};
use rumormill::proto::kv::store::{MAX_KEY, Write};
use rumormill::proto::kv::value::{MAX_VALUE, Value};
use rumormill::proto::message::{
    Addr, Answer, AntiEntropy, Broadcast, CastVote, Change, ChangeKind, Council, Decision,
    Detection, Gossip, Hello, Identity, Inspection, LinkReport, Members, Message, Parting, Parts,
    Prefix, Purpose, Ranges, Refusal, Refused, Role, Standing, StoreSync, ToPeer, ToSeed, Welcome,
};
use rumormill::proto::registry::{Record, Status};
use rumormill::proto::signature::Signature;
use rumormill::proto::time::Time;

fn addr(port: u16) -> Addr {
    ([127, 0, 0, 1], port).into()
}

fn record() -> Record {
    Record::plain(300, Status::Dead, 7, vec![0, 2])
}

fn prefix(depth: u8, nibbles: u64) -> Prefix {
    Prefix::new(depth, nibbles).unwrap()
}

fn gossip() -> Gossip {
    Gossip {
        origin: addr(6000),
        life: 1_795_250_907_430,
        number: 9,
        offset: 5_000,
        age: 3,
        payload: Bytes::from_static(b"hi"),
        signature: Some(Box::new(Signature::from_bytes(&[0x5a; 64]))),
    }
}

fn clock() -> Clock {
    [("127.0.0.1:6002@300".into(), 1), ("elsewhere".into(), 2)].into_iter().collect()
}

fn seal() -> Write {
    Write {
        dot: Dot { replica: "127.0.0.1:6001@7!".into(), count: 2 },
        past: Seen::of([("127.0.0.1:6002@300!".into(), 1)].into_iter().collect()),
        own: 1,
        lamport: 3,
        at: Time::from_micros(251),
        key: "".into(),
        replaces: vec![Dot { replica: "127.0.0.1:6002@9".into(), count: 251 }],
        value: None,
    }
}

fn write() -> Write {
    let dot = |count| Dot { replica: "127.0.0.1:6001@7".into(), count };
    Write {
        dot: dot(2),
        past: Seen {
            clock: clock(),
            extra: vec![Dot { replica: "elsewhere".into(), count: 4 }],
            floor: [("127.0.0.1:6003@8".into(), 5)].into_iter().collect(),
        },
        own: 1,
        lamport: 3,
        at: Time::from_micros(251),
        key: "k".into(),
        replaces: vec![dot(1)],
        value: Some(Value::new(&serde_json::json!(["ü"])).unwrap()),
    }
}

/// Every kind of message, with the bytes that it has always had.
fn golden() -> Vec<(Message, &'static str)> {
    let tag = [1, 2, 3, 4, 5, 6, 7, 8];
    let peer = addr(6001);
    let change = Change {
        kind: ChangeKind::Dead,
        peer,
        incarnation: 300,
        at: 7,
        reporters: vec!["[::1]:6002".parse().unwrap()],
        identity: None,
    };
    vec![
        (Message::Ping(1), "00000002_0001"),
        (Message::Pong(251), "00000004_01fbfb00"),
        (Message::Parting(Parting::Leaving), "00000002_0200"),
        (Message::Parting(Parting::Unlink), "00000002_0201"),
        (
            Message::Broadcast(Broadcast::Gossip(gossip())),
            "0000005c_0300007f000001fb7017fd26e94afda101000009fb102703026869015a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a",
        ),
        (
            Message::Broadcast(Broadcast::Have(vec![(tag, vec![(3, 2)])])),
            "0000000e_0301010102030405060708010302",
        ),
        (Message::Broadcast(Broadcast::Prune), "00000002_0302"),
        (Message::Broadcast(Broadcast::Graft), "00000002_0303"),
        (
            Message::Broadcast(Broadcast::Want(vec![(tag, vec![(3, 2)])])),
            "0000000e_0304010102030405060708010302",
        ),
        (
            Message::AntiEntropy(AntiEntropy::Digest {
                round: 4,
                count: 2,
                digest: [0xab; 32],
                fresh: true,
            }),
            "00000025_04000402abababababababababababababababababababababababababababababababab01",
        ),
        (
            Message::AntiEntropy(AntiEntropy::Ranges(Box::new(Ranges {
                to: 4,
                round: 5,
                salt: [6; 8],
                floor: 7,
                parts: Parts {
                    splits: vec![(prefix(0, 0), [[8; 6]; 16])],
                    lists: vec![(prefix(1, 9), vec![[10; 6]])],
                    wants: vec![(prefix(3, 0x123), vec![[11; 6], [12; 6]])],
                },
            }))),
            "0000008c_04010405060606060606060607010000080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808010109010a0a0a0a0a0a0103fb2301020b0b0b0b0b0b0c0c0c0c0c0c",
        ),
        (
            Message::Detection(Detection::SuspectNotice { peer, incarnation: 3 }),
            "0000000b_0500007f000001fb711703",
        ),
        (
            Message::Detection(Detection::Witness { peer, incarnation: 3 }),
            "0000000b_0501007f000001fb711703",
        ),
        (
            Message::Detection(Detection::Refute { peer, incarnation: 4 }),
            "0000000b_0502007f000001fb711704",
        ),
        (Message::ToSeed(ToSeed::Register { request: 1, incarnation: 5 }), "00000004_06000105"),
        (Message::ToSeed(ToSeed::Leave { request: 2, incarnation: 5 }), "00000004_06010205"),
        (
            Message::ToSeed(ToSeed::Refresh { request: 3, digest: [1; 32] }),
            "00000023_0602030101010101010101010101010101010101010101010101010101010101010101",
        ),
        (
            Message::ToSeed(ToSeed::DeadNode { peer, incarnation: 3, text: "Dead".to_owned() }),
            "00000010_0603007f000001fb7117030444656164",
        ),
        (Message::ToPeer(ToPeer::Granted { request: 1, votes: 2 }), "00000004_07000102"),
        (
            Message::ToPeer(ToPeer::Denied {
                request: 1,
                votes: 0,
                reason: "no".to_owned(),
                known: 9,
            }),
            "00000008_07010100026e6f09",
        ),
        (
            Message::ToPeer(ToPeer::List {
                request: 1,
                records: [(peer, record())].into(),
                more: false,
            }),
            "00000017_07020101007f000001fb7117fb2c010207020002000000",
        ),
        (Message::ToPeer(ToPeer::Unchanged { request: 1 }), "00000003_070301"),
        (
            Message::ToPeer(ToPeer::Update(vec![(peer, record())])),
            "00000015_070401007f000001fb7117fb2c0102070200020000",
        ),
        (
            Message::Council(Council::Propose { ballot: 1, change: change.clone() }),
            "00000026_08000102007f000001fb7117fb2c0107010100000000000000000000000000000001fb721700",
        ),
        (
            Message::Council(Council::Vote {
                ballot: 1,
                accept: true,
                reason: "ok".to_owned(),
                known: 0,
                signature: Some(Signature::from_bytes(&[0xa5; 64])),
            }),
            "00000049_08010101026f6b0001a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5",
        ),
        (
            Message::Council(Council::Commit {
                ballot: 1,
                peer,
                record: Record {
                    identity: Some(Identity([6; 32])),
                    signatures: vec![Signature::from_bytes(&[0xa5; 64]); 2],
                    ..record()
                },
                decision: Box::new(decision(change)),
            }),
            "000000ef_080201007f000001fb7117fb2c01020702000201060606060606060606060606060606060606060606060606060606060606060602a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a502007f000001fb7117fb2c0107010100000000000000000000000000000001fb721700007f000001fb88130901007f000001fb881301026f6b01",
        ),
        (Message::Council(Council::Committed { ballot: 1 }), "00000003_080301"),
        (
            Message::Council(Council::Compare {
                count: 1,
                digest: [2; 32],
                standing: Standing::Voting,
                founders: vec![5],
            }),
            "00000026_0804010202020202020202020202020202020202020202020202020202020202020202020105",
        ),
        (
            Message::Council(Council::Branches(vec![[3; 12]])),
            "0000000f_080501030303030303030303030303",
        ),
        (
            Message::Council(Council::Leaves(vec![(1, vec![[3; 12]])])),
            "00000011_0806010101030303030303030303030303",
        ),
        (
            Message::Council(Council::Holdings { leaves: vec![(300, vec![[3; 12]])], more: true }),
            "00000014_080701fb2c010103030303030303030303030301",
        ),
        (
            Message::Council(Council::Records {
                records: vec![(peer, record())],
                wanted: vec![(300, vec![[3; 12]])],
                done: Some(Standing::Founding),
            }),
            "00000028_080801007f000001fb7117fb2c010207020002000001fb2c01010303030303030303030303030101",
        ),
        (
            Message::Council(Council::Expire { round: 1, records: vec![(peer, record())] }),
            "00000016_08090101007f000001fb7117fb2c0102070200020000",
        ),
        (Message::Council(Council::Expired { round: 1 }), "00000003_080a01"),
        (Message::Council(Council::Forget(vec![(peer, 3)])), "0000000c_080b01007f000001fb711703"),
        (
            Message::ToSeed(ToSeed::Links { number: 1, neighbours: vec![peer] }),
            "0000000c_06040101007f000001fb7117",
        ),
        (
            Message::Council(Council::LinkReports(vec![LinkReport {
                peer,
                incarnation: 3,
                number: 1,
                neighbours: vec![peer],
            }])),
            "00000016_080c01007f000001fb7117030101007f000001fb7117",
        ),
        (Message::AntiEntropy(AntiEntropy::Matched(4)), "00000003_040204"),
        (
            Message::StoreSync(StoreSync::Write(Arc::new(write()))),
            "0000007b_090000007f000001fb711707020200007f000001fb7217fb2c01010109656c7365776865726502010109656c73657768657265040100007f000001fb731708050103fbfb00016b0100007f000001fb7117070101065b22c3bc225d25430e7ac849b6925886cb691fdcc5b6dcc24bf6b64b1a80b08bf928eb1c2703",
        ),
        (
            Message::StoreSync(StoreSync::Context { context: clock(), answer: true }),
            "0000001d_09010200007f000001fb7217fb2c01010109656c736577686572650201",
        ),
        (
            Message::StoreSync(StoreSync::Writes(vec![Arc::new(write())])),
            "0000007c_09020100007f000001fb711707020200007f000001fb7217fb2c01010109656c7365776865726502010109656c73657768657265040100007f000001fb731708050103fbfb00016b0100007f000001fb7117070101065b22c3bc225d25430e7ac849b6925886cb691fdcc5b6dcc24bf6b64b1a80b08bf928eb1c2703",
        ),
        (Message::StoreSync(StoreSync::SnapshotOffer), "00000002_0903"),
        (Message::StoreSync(StoreSync::SnapshotAsk { round: 4, seen: None }), "00000004_09040400"),
        (
            Message::StoreSync(StoreSync::SnapshotAsk { round: 4, seen: Some(clock()) }),
            "0000001e_090404010200007f000001fb7217fb2c01010109656c7365776865726502",
        ),
        (
            Message::StoreSync(StoreSync::SnapshotPart {
                round: 4,
                part: 1,
                context: clock(),
                lamport: 3,
                seals: vec![Arc::new(seal())],
                standing: vec![("[::1]:6002@300".into(), vec![(1, 2), (251, 1)])],
                entries: vec![("k".into(), write().version().into_iter().collect())],
                more: false,
            }),
            "000000d6_090504010200007f000001fb7217fb2c01010109656c7365776865726502030102007f000001fb711707020102007f000001fb7217fb2c010100000103fbfb00000100007f000001fb721709fbfb0000010e5b3a3a315d3a3630303240333030020102fbfb000101016b0100007f000001fb711707020200007f000001fb7217fb2c01010109656c7365776865726502010109656c73657768657265040100007f000001fb731708050103fbfb00065b22c3bc225d25430e7ac849b6925886cb691fdcc5b6dcc24bf6b64b1a80b08bf928eb1c270300",
        ),
        (
            Message::Members(Members::Handshake(vec![(peer, record())])),
            "00000015_0a0001007f000001fb7117fb2c0102070200020000",
        ),
        (
            Message::Members(Members::Peers {
                records: vec![(peer, record())],
                context: clock(),
                caught_up: true,
            }),
            "00000030_0a0101007f000001fb7117fb2c01020702000200000200007f000001fb7217fb2c01010109656c736577686572650201",
        ),
        (
            Message::Members(Members::Changed(vec![(peer, record())])),
            "00000015_0a0201007f000001fb7117fb2c0102070200020000",
        ),
        (
            Message::Members(Members::Digest([5; 32])),
            "00000022_0a030505050505050505050505050505050505050505050505050505050505050505",
        ),
        (Message::Inspection(Inspection::Ask(Some("k".into()))), "00000005_0b0001016b"),
        (Message::Inspection(Inspection::Ask(None)), "00000003_0b0000"),
        (
            Message::Inspection(Inspection::Versions {
                versions: write().version().into_iter().collect(),
                more: false,
            }),
            "0000006e_0b010100007f000001fb711707020200007f000001fb7217fb2c01010109656c7365776865726502010109656c73657768657265040100007f000001fb731708050103fbfb00065b22c3bc225d25430e7ac849b6925886cb691fdcc5b6dcc24bf6b64b1a80b08bf928eb1c270300",
        ),
        (
            Message::Inspection(Inspection::Keys {
                keys: vec!["k".into(), "l".into()],
                more: true,
            }),
            "00000008_0b0202016b016c01",
        ),
        (Message::ToPeer(ToPeer::NoMember { peer: addr(6001) }), "0000000a_0705007f000001fb7117"),
    ]
}

fn decision(change: Change) -> Decision {
    let seed = ([127, 0, 0, 1], 5000).into();
    let votes = vec![CastVote { seed, accept: true, reason: "ok".to_owned() }];
    Decision { change, proposer: seed, decided: 9, votes, committed: true }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn plain(text: &str) -> String {
    text.chars().filter(char::is_ascii_hexdigit).collect()
}

/// Names all kinds of messages, by protocol. One that is missing here does not compile, and one that
/// has no golden bytes does not pass.
macro_rules! kinds {
    ([$($bare:ident)*] $($protocol:ident [$($kind:ident)*])*) => {
        const KINDS: &[&str] = &[
            $(stringify!($bare),)*
            $($(concat!(stringify!($protocol), "::", stringify!($kind)),)*)*
        ];

        fn kind(message: &Message) -> &'static str {
            match message {
                $(Message::$bare { .. } => stringify!($bare),)*
                $($(Message::$protocol($protocol::$kind { .. }) => {
                    concat!(stringify!($protocol), "::", stringify!($kind))
                })*)*
            }
        }
    };
}

kinds! {
    [Ping Pong]
    Parting [Leaving Unlink]
    Broadcast [Gossip Have Prune Graft Want]
    AntiEntropy [Digest Ranges Matched]
    Detection [SuspectNotice Witness Refute]
    ToSeed [Register Leave Refresh DeadNode Links]
    ToPeer [Granted Denied List Unchanged Update NoMember]
    Council [
        Propose Vote Commit Committed Compare Branches Leaves Holdings Records Expire Expired Forget
        LinkReports
    ]
    StoreSync [Write Context Writes SnapshotOffer SnapshotAsk SnapshotPart]
    Members [Handshake Peers Changed Digest]
    Inspection [Ask Versions Keys]
}

#[test]
fn every_kind_of_message_has_golden_bytes() {
    let golden: BTreeSet<&str> = golden().iter().map(|(message, _)| kind(message)).collect();
    let lacking: Vec<&&str> = KINDS.iter().filter(|kind| !golden.contains(*kind)).collect();
    assert!(lacking.is_empty(), "{lacking:?}");
}

#[test]
fn messages_keep_their_bytes() {
    let mut wrong = Vec::new();
    for (message, bytes) in golden() {
        let mut encoded = Vec::new();
        codec::encode(&message, &mut encoded).unwrap();
        if hex(&encoded) != plain(bytes) {
            wrong.push(format!("{message:?}\n  {}_{}", hex(&encoded[..4]), hex(&encoded[4..])));
        }
        assert_eq!(codec::decode(&encoded[4..]).unwrap(), message);
    }
    assert!(wrong.is_empty(), "the format has changed:\n{}", wrong.join("\n"));
}

fn hello() -> Hello {
    Hello {
        network: "rumormill".to_owned(),
        seeds: [3; 32],
        role: Role::Peer,
        from: addr(6000),
        incarnation: 5,
        purpose: Purpose::Link,
        clock: 1_795_250_907_430,
        identity: None,
    }
}

#[test]
fn the_opening_keeps_its_bytes() {
    let mut encoded = Vec::new();
    codec::encode_hello(&hello(), &mut encoded).unwrap();
    let expected = "00000043_524d494c_07_0972756d6f726d696c6c\
        0303030303030303030303030303030303030303030303030303030303030303_01_007f000001fb7017_05_01_fd26e94afda1010000";
    assert_eq!(hex(&encoded), plain(expected));
    assert_eq!(codec::decode_hello(&encoded[4..]).unwrap(), hello());

    let welcome = Answer::Welcome(Welcome {
        role: Role::Peer,
        from: addr(6001),
        incarnation: 5,
        leaving: false,
        clock: 7,
        identity: None,
    });
    let refused = Answer::Refused(Refusal { reason: Refused::Full, others: vec![addr(6002)] });
    for (answer, expected) in [
        (welcome, "0000000d_0001007f000001fb7117050007"),
        (refused, "0000000b_010301007f000001fb7217"),
    ] {
        let mut encoded = Vec::new();
        codec::encode_answer(&answer, &mut encoded).unwrap();
        assert_eq!(hex(&encoded), plain(expected), "{answer:?}");
        assert_eq!(codec::decode_answer(&encoded[4..]).unwrap(), answer);
    }
}

#[test]
fn an_identity_stands_behind_the_voters_of_a_record() {
    let identity = Some(Identity([0xa5; 32]));
    let record = Record { status: Status::Alive, identity, ..record() };
    let message = Message::ToPeer(ToPeer::Update(vec![(addr(6001), record)]));
    let mut encoded = Vec::new();
    codec::encode(&message, &mut encoded).unwrap();
    let bytes = format!("00000035_070401007f000001fb7117fb2c010007020002_01{}_00", "a5".repeat(32));
    assert_eq!(hex(&encoded), plain(&bytes));
    assert_eq!(codec::decode(&encoded[4..]).unwrap(), message);
}

#[test]
fn an_encrypted_opening_keeps_its_frames() {
    let first = codec::encode_sealed_opening(&[1, 2]).unwrap();
    assert_eq!(hex(&first), plain("00000007_524d4958_07_0102"));
    assert_eq!(codec::decode_opening(&first[4..]).unwrap(), Opening::Sealed(&[1, 2]));
    let second = codec::encode_sealed_reply(&[3]).unwrap();
    assert_eq!(hex(&second), plain("00000002_ff_03"));
    assert_eq!(codec::sealed_reply(&second[4..]), Some(&[3][..]));
    assert_eq!(hex(&codec::encode_sealed_hello(&[4, 5]).unwrap()), plain("00000002_0405"));
    // No answer is taken for a second message.
    let refused = Answer::Refused(Refusal { reason: Refused::WrongKey, others: Vec::new() });
    let mut encoded = Vec::new();
    codec::encode_answer(&refused, &mut encoded).unwrap();
    assert_eq!(hex(&encoded), plain("00000003_010b00"));
    assert_eq!(codec::sealed_reply(&encoded[4..]), None);
    // Inside, the identity stands before the hello.
    let identity = Identity([9; 32]);
    let inner = codec::encode_inner_hello(&identity, &hello()).unwrap();
    let mut outer = Vec::new();
    codec::encode_hello(&hello(), &mut outer).unwrap();
    assert_eq!(inner, [&[9; 32][..], &outer[9..]].concat());
    assert_eq!(codec::decode_inner_hello(&inner).unwrap(), (identity, hello()));
}

#[test]
fn another_version_and_another_protocol_are_told_apart() {
    let mut encoded = Vec::new();
    codec::encode_hello(&hello(), &mut encoded).unwrap();
    let body = &mut encoded[4..];
    body[4] = 9;
    assert!(matches!(codec::decode_hello(body), Err(codec::DecodeError::Version(9))));
    body[0] = b'G';
    assert!(matches!(codec::decode_hello(body), Err(codec::DecodeError::Magic)));
    assert!(matches!(codec::decode_hello(b"RM"), Err(codec::DecodeError::Magic)));
}

#[test]
fn a_frame_is_consumed_to_its_last_byte() {
    let mut encoded = Vec::new();
    codec::encode(&Message::Ping(1), &mut encoded).unwrap();
    encoded.push(0);
    assert!(matches!(codec::decode(&encoded[4..]), Err(codec::DecodeError::LeftOver(1))));
    assert!(codec::decode(&encoded[4..5]).is_err(), "and not cut short");
}

#[test]
fn a_short_frame_cannot_claim_a_great_allocation() {
    // A `Have` of 2^63 entries, in ten bytes.
    let frame = [3, 1, 253, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    assert!(codec::decode(&frame).is_err());
    // A payload of four gigabytes that is not there.
    let mut frame = Vec::new();
    codec::encode(&Message::Broadcast(Broadcast::Gossip(gossip())), &mut frame).unwrap();
    let mut frame = frame[4..frame.len() - 3].to_vec();
    frame.extend_from_slice(&[252, 0xff, 0xff, 0xff, 0xff, b'h']);
    assert!(codec::decode(&frame).is_err());
}

#[test]
fn a_frame_over_the_limit_is_refused_by_its_header() {
    let mut frames = codec::frames();
    let mut buffer = BytesMut::from(&[0xff, 0xff, 0xff, 0xff, 0][..]);
    assert!(codec::next_frame(&mut frames, &mut buffer).is_err());
    let mut opening = codec::opening_frames();
    let mut buffer = BytesMut::from(&[0, 0, 0x10, 0, 0][..]);
    assert!(codec::next_frame(&mut opening, &mut buffer).is_err(), "4 KiB are no hello");
}

/// As much as a clock may hold.
fn full_clock(life: usize) -> Clock {
    let name = |port| format!("127.0.0.1:{port}@{life:0>100}");
    let (mut clock, mut port) = (Clock::new(), 1_000);
    while clock.has_room_for(&name(port)) {
        clock.raise(&name(port).into(), u64::from(u32::MAX));
        port += 1;
    }
    clock
}

#[test]
fn the_greatest_version_fits_a_part_of_a_snapshot() {
    let past = Seen { clock: full_clock(1), floor: full_clock(2), ..Seen::default() };
    let text = "x".repeat(MAX_VALUE - 2);
    let value = Some(Value::new(&serde_json::json!(text)).unwrap());
    let version = Write { past, value, ..write() }.version().unwrap();
    let part = Message::StoreSync(StoreSync::SnapshotPart {
        round: 1,
        part: 0,
        context: full_clock(3),
        lamport: 1,
        seals: Vec::new(),
        standing: Vec::new(),
        entries: vec![("\u{10ffff}".repeat(MAX_KEY).into(), vec![version])],
        more: false,
    });
    let mut encoded = Vec::new();
    codec::encode(&part, &mut encoded).unwrap();
    assert_eq!(codec::decode(&encoded[4..]).unwrap(), part);
}

#[test]
fn a_message_over_the_limit_is_not_sent_in_part() {
    let payload = Bytes::from(vec![0; codec::MAX_FRAME]);
    let mut buffer = b"before".to_vec();
    assert!(
        codec::encode(
            &Message::Broadcast(Broadcast::Gossip(Gossip { payload, ..gossip() })),
            &mut buffer
        )
        .is_err()
    );
    assert_eq!(buffer, b"before");
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = codec::decode(&bytes);
        let _ = codec::decode_hello(&bytes);
        let _ = codec::decode_answer(&bytes);
        let mut frames = codec::frames();
        let mut buffer = BytesMut::from(&bytes[..]);
        while let Ok(Some(frame)) = codec::next_frame(&mut frames, &mut buffer) {
            let _ = codec::decode(&frame);
        }
    }

    #[test]
    fn a_message_with_a_few_wrong_bytes_never_panics(
        which in any::<prop::sample::Index>(),
        hits in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..4),
    ) {
        let all = golden();
        let (message, _) = which.get(&all);
        let mut encoded = Vec::new();
        codec::encode(message, &mut encoded).unwrap();
        let mut body = encoded.split_off(4);
        for (place, byte) in hits {
            let place = place % body.len();
            body[place] = byte;
        }
        let _ = codec::decode(&body);
    }
}
