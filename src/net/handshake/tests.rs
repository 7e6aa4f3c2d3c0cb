//! Openings over real sockets: who gets in, and what either side is told.

use super::*;
use crate::net::secure::{KnownSeeds, NetworkKey, NetworkKeys, Secret};
use tokio::net::TcpListener;

fn network() -> Network {
    Network::new("test", [seed()])
}

fn seed() -> Addr {
    ([127, 0, 0, 1], 5000).into()
}

fn caller() -> Addr {
    ([127, 0, 0, 1], 6000).into()
}

fn process(key: &NetworkKey) -> Security {
    process_that_knows(key, None)
}

/// A process for which the seed has that identity.
fn process_that_knows(key: &NetworkKey, identity: Option<Identity>) -> Security {
    let seeds = KnownSeeds::new([(seed(), identity)], |_, _| Ok(()));
    Security::new(NetworkKeys::of(key.clone()), Secret::fresh().unwrap(), seeds)
}

fn hello(role: Role, from: Addr, purpose: Purpose) -> Hello {
    network().hello(role, from, 7, purpose)
}

/// Says a hello to a process that welcomes whoever it accepts; returns what both sides found.
async fn meet(
    dialling: Option<&Security>,
    accepting: Option<&Security>,
    hello: &Hello,
) -> (Result<Welcome, OpenError>, Result<Hello, AcceptError>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap();
    let answering = async {
        let (stream, _) = listener.accept().await.unwrap();
        let (mut opened, hello) = accept(stream, &network(), accepting).await?;
        let (role, from) = (Role::Peer, to);
        let welcome =
            Welcome { role, from, incarnation: 8, leaving: false, clock: 0, identity: None };
        let me = accepting.map(Security::identity);
        let mut bytes = answer_bytes(me.as_ref(), &Answer::Welcome(welcome)).unwrap();
        if let Some((session, _)) = opened.session.as_deref_mut() {
            let plain = std::mem::take(&mut bytes);
            session.sealer.seal(&plain, &mut bytes).unwrap();
        }
        opened.stream.write_all(&bytes).await.unwrap();
        Ok(hello)
    };
    let within = Duration::from_secs(10);
    let (opened, heard) = tokio::join!(open(to, hello, within, dialling), answering);
    (opened.map(|(_, welcome)| welcome), heard)
}

#[tokio::test]
async fn both_sides_of_an_encrypted_link_know_each_other() {
    let key = NetworkKey::fresh().unwrap();
    let (ours, theirs) = (process(&key), process(&key));
    let hello = hello(Role::Peer, caller(), Purpose::Link);
    let (welcome, heard) = meet(Some(&ours), Some(&theirs), &hello).await;
    assert_eq!(welcome.unwrap().identity, Some(theirs.identity()));
    assert_eq!(heard.unwrap(), Hello { identity: Some(ours.identity()), ..hello.clone() });
    let (welcome, heard) = meet(None, None, &hello).await;
    assert_eq!((welcome.unwrap().identity, heard.unwrap().identity), (None, None));
}

#[tokio::test]
async fn without_the_key_nobody_gets_in_and_both_sides_are_told_why() {
    let [one, other] = [(); 2].map(|()| process(&NetworkKey::fresh().unwrap()));
    let hello = hello(Role::Peer, caller(), Purpose::Link);
    for (dialling, accepting, expected) in [
        (Some(&one), Some(&other), Refused::WrongKey),
        (None, Some(&one), Refused::Plain),
        (Some(&one), None, Refused::Encrypted),
    ] {
        let (opened, heard) = meet(dialling, accepting, &hello).await;
        assert!(matches!(heard, Err(AcceptError::Refused(refused, None)) if refused == expected));
        assert_eq!(opened, Err(refusal_of(expected)));
    }
}

#[tokio::test]
async fn nobody_calls_in_the_name_of_a_seed() {
    let key = NetworkKey::fresh().unwrap();
    let caller = process(&key);
    let (right, wrong) = (Some(caller.identity()), Some(process(&key).identity()));
    for (known, purpose, expected) in [
        (right, Purpose::Council, None),
        (wrong, Purpose::Council, Some(Refused::WrongIdentity)),
        (None, Purpose::Council, Some(Refused::UnknownIdentity)),
        (wrong, Purpose::Probe, Some(Refused::WrongIdentity)),
        (None, Purpose::Probe, None),
    ] {
        let accepting = process_that_knows(&key, known);
        let hello = hello(Role::Seed, seed(), purpose);
        let (opened, heard) = meet(Some(&caller), Some(&accepting), &hello).await;
        match expected {
            None => assert!(opened.is_ok() && heard.is_ok()),
            Some(refused) => {
                assert_eq!(opened, Err(refusal_of(refused)), "encrypted, but no link");
                let by = Some(seed());
                assert!(
                    matches!(heard, Err(AcceptError::Refused(r, b)) if (r, b) == (refused, by))
                );
            }
        }
    }
}

#[tokio::test]
async fn what_was_said_in_plain_is_not_believed_of_an_encrypted_link() {
    let key = NetworkKey::fresh().unwrap();
    for (reason, expected) in [
        (Refused::NotMember, OpenError::Garbage),
        (Refused::Leaving, OpenError::Garbage),
        (Refused::Version, refusal_of(Refused::Version)),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let in_between = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = Answer::Refused(Refusal { reason, others: Vec::new() });
            stream.write_all(&answer_bytes(None, &answer).unwrap()).await.unwrap();
            stream
        };
        let hello = hello(Role::Peer, caller(), Purpose::Link);
        let security = process(&key);
        let dial = open(to, &hello, Duration::from_secs(10), Some(&security));
        let (opened, _stream) = tokio::join!(dial, in_between);
        assert_eq!(opened.err(), Some(expected));
    }
}

#[tokio::test]
async fn an_identity_that_is_only_claimed_is_refused() {
    let key = NetworkKey::fresh().unwrap();
    let (ours, theirs, victim) = (process(&key), process(&key), process(&key));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap();
    let lying = async {
        let mut stream = TcpStream::connect(to).await.unwrap();
        let (dialling, first) = Dialling::begin(&ours, &codec::prologue()).unwrap();
        stream.write_all(&codec::encode_sealed_opening(&first).unwrap()).await.unwrap();
        let frame = read_opening(&mut stream, &mut BytesMut::new()).await.unwrap();
        let hello = hello(Role::Peer, caller(), Purpose::Link);
        let inner = codec::encode_inner_hello(&victim.identity(), &hello).unwrap();
        let reply = codec::sealed_reply(&frame).unwrap();
        let (third, _) = dialling.finish(reply, &inner).unwrap();
        stream.write_all(&codec::encode_sealed_hello(&third).unwrap()).await.unwrap();
        stream
    };
    let accepting = async {
        let (stream, _) = listener.accept().await.unwrap();
        accept(stream, &network(), Some(&theirs)).await
    };
    let (_stream, heard) = tokio::join!(lying, accepting);
    assert!(matches!(heard, Err(AcceptError::Impostor)));
}

#[tokio::test]
async fn a_hello_that_comes_byte_by_byte_is_a_hello() {
    let mut bytes = Vec::new();
    codec::encode_hello(&hello(Role::Peer, caller(), Purpose::Link), &mut bytes).unwrap();
    // No read gets more than one byte.
    let (mut says, mut hears) = tokio::io::duplex(1);
    let mut rest = BytesMut::new();
    let saying = async { says.write_all(&bytes).await.unwrap() };
    let (frame, ()) = tokio::join!(read_opening(&mut hears, &mut rest), saying);
    assert_eq!(frame.unwrap(), bytes[codec::HEADER..]);
}
