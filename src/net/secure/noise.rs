//! The handshake of an encrypted link, and its records.
//!
//! The dialling side says the first message, hears the second, and says its hello in the third; the
//! answer is in the first record. In front of the first message goes a hint at the network key, so
//! that a stranger is refused before the handshake costs any work on curves. A record is its length in two bytes and what Noise makes of at
//! most [`MAX_RECORD`] bytes. What must stay true: records are numbered by both sides, so one that
//! is lost, repeated, changed or swapped ends the link.

use std::sync::Arc;

use snow::params::NoiseParams;
use snow::{Builder, HandshakeState, StatelessTransportState};

use super::Security;
use super::keys::{HINT, NetworkKey};
use super::secret::dh_key_of;
use crate::proto::message::Identity;

/// The protocol by its name in Noise. Processors do AES and SHA-256 in hardware: a record of 200
/// bytes takes 0.3 µs with AES-GCM, and 1.9 µs with ChaCha20-Poly1305, in which a delivery would
/// cost half as much again.
const PROTOCOL: &str = "Noise_XXpsk3_25519_AESGCM_SHA256";
/// Where the pattern mixes the pre-shared key in.
const PSK_PLACE: u8 = 3;
/// Bytes of an authentication tag.
const TAG: usize = 16;
/// Bytes of the length in front of a record.
const HEADER: usize = 2;
/// Bytes of the longest message of Noise (section 3).
const LONGEST: usize = 65_535;
/// Bytes that one record carries at most: the longest message of Noise without its tag.
pub const MAX_RECORD: usize = LONGEST - TAG;
/// Bytes of the longest message of a handshake: the third one, with a hello of the length that
/// `net::codec` allows, the caller's key and two tags.
const HANDSHAKE: usize = crate::net::codec::MAX_OPENING + 128;

/// Why a handshake or a record is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoiseError {
    /// The other side has none of the network's keys.
    #[error("has no key of this network")]
    NoKey,
    /// What the other side said cannot be decrypted: it has another key, or somebody changed it.
    #[error("cannot be decrypted")]
    Undecipherable,
    /// The length of a record is impossible.
    #[error("a record of {0} bytes")]
    Length(usize),
    /// This process has no key or no randomness, or a link has carried all records that it can.
    #[error("cannot encrypt")]
    Unable,
}

fn builder<'a>(
    secret: &'a [u8; 32],
    prologue: &'a [u8],
    key: &'a NetworkKey,
) -> Result<Builder<'a>, NoiseError> {
    let params: NoiseParams = PROTOCOL.parse().map_err(|_| NoiseError::Unable)?;
    Builder::new(params)
        .local_private_key(secret)
        .and_then(|builder| builder.psk(PSK_PLACE, key.bytes()))
        .and_then(|builder| builder.prologue(prologue))
        .map_err(|_| NoiseError::Unable)
}

/// Writes the next message of a handshake.
fn say(state: &mut HandshakeState, payload: &[u8]) -> Result<Vec<u8>, NoiseError> {
    let mut message = vec![0; HANDSHAKE];
    let length = state.write_message(payload, &mut message).map_err(|_| NoiseError::Unable)?;
    message.truncate(length);
    Ok(message)
}

/// Reads the next message of a handshake, and returns what it carries.
fn hear(state: &mut HandshakeState, message: &[u8]) -> Result<Vec<u8>, NoiseError> {
    let mut payload = vec![0; message.len()];
    let length =
        state.read_message(message, &mut payload).map_err(|_| NoiseError::Undecipherable)?;
    payload.truncate(length);
    Ok(payload)
}

/// The side of a handshake that dials.
pub struct Dialling(HandshakeState);

impl Dialling {
    /// Begins, and returns the first message. Both sides have to mix the same `prologue` in.
    ///
    /// # Errors
    ///
    /// If this process has no key or no randomness.
    pub fn begin(security: &Security, prologue: &[u8]) -> Result<(Self, Vec<u8>), NoiseError> {
        let (secret, keys) = (security.0.secret.dh_key(), security.keys());
        let key = keys.first().ok_or(NoiseError::Unable)?;
        let builder = builder(&secret, prologue, key)?;
        let mut state = builder.build_initiator().map_err(|_| NoiseError::Unable)?;
        let message = say(&mut state, &[])?;
        Ok((Self(state), [&key.hint(&message)[..], &message].concat()))
    }

    /// Hears the second message, and returns the third one, which carries `hello`, and the session.
    ///
    /// # Errors
    ///
    /// If the second message is none.
    pub fn finish(mut self, reply: &[u8], hello: &[u8]) -> Result<(Vec<u8>, Session), NoiseError> {
        hear(&mut self.0, reply)?;
        let message = say(&mut self.0, hello)?;
        Ok((message, Session::of(self.0)?))
    }
}

/// The side of a handshake that accepts.
pub struct Accepting(HandshakeState);

impl Accepting {
    /// Hears the first message, and returns the second one. All network keys are accepted: the other
    /// side may still dial with an old one, or already with a new one.
    ///
    /// # Errors
    ///
    /// If the other side has none of the keys, the message is none, or this process has no
    /// randomness.
    pub fn begin(
        security: &Security,
        prologue: &[u8],
        opening: &[u8],
    ) -> Result<(Self, Vec<u8>), NoiseError> {
        let (hint, message) = opening.split_at_checked(HINT).ok_or(NoiseError::Undecipherable)?;
        let keys = security.keys();
        let key = keys.hinted_at(hint, message).ok_or(NoiseError::NoKey)?;
        let secret = security.0.secret.dh_key();
        let builder = builder(&secret, prologue, key)?;
        let mut state = builder.build_responder().map_err(|_| NoiseError::Unable)?;
        hear(&mut state, message)?;
        let reply = say(&mut state, &[])?;
        Ok((Self(state), reply))
    }

    /// Hears the third message, and returns the hello in it, and the session.
    ///
    /// # Errors
    ///
    /// If the other side has not the key that it hinted at.
    pub fn finish(mut self, message: &[u8]) -> Result<(Vec<u8>, Session), NoiseError> {
        let hello = hear(&mut self.0, message)?;
        Ok((hello, Session::of(self.0)?))
    }
}

/// An encrypted link whose handshake is over.
pub struct Session {
    /// The public key that the other side has proven to hold.
    other: [u8; 32],
    /// Encrypts what this side says.
    pub sealer: Sealer,
    /// Decrypts what the other side says.
    pub opener: Opener,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Session(..)")
    }
}

impl Session {
    fn of(state: HandshakeState) -> Result<Self, NoiseError> {
        let other = state.get_remote_static().and_then(|key| key.try_into().ok());
        let other = other.ok_or(NoiseError::Unable)?;
        let state = state.into_stateless_transport_mode().map_err(|_| NoiseError::Unable)?;
        let state = Arc::new(state);
        let sealer = Sealer { state: Arc::clone(&state), sealed: 0 };
        Ok(Self { other, sealer, opener: Opener { state, opened: 0 } })
    }

    /// Whether the process at the other end holds the secret of this identity.
    pub fn is_with(&self, identity: &Identity) -> bool {
        dh_key_of(identity) == Some(self.other)
    }
}

/// Encrypts the records of one direction of a link.
pub struct Sealer {
    state: Arc<StatelessTransportState>,
    /// Number of records so far, which is the nonce of the next one.
    sealed: u64,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer(..)")
    }
}

impl Sealer {
    /// Appends a record with these bytes, at most [`MAX_RECORD`].
    ///
    /// # Errors
    ///
    /// If they are too many, or the link has carried all records that it can.
    pub fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), NoiseError> {
        let length = u16::try_from(plain.len() + TAG).map_err(|_| NoiseError::Unable)?;
        let start = out.len();
        out.extend_from_slice(&length.to_be_bytes());
        out.resize(start + HEADER + usize::from(length), 0);
        let place = out.get_mut(start + HEADER..).unwrap_or_default();
        let written = self.state.write_message(self.sealed, plain, place);
        written.map_err(|_| NoiseError::Unable)?;
        self.sealed += 1;
        Ok(())
    }
}

/// Decrypts the records of one direction of a link.
pub struct Opener {
    state: Arc<StatelessTransportState>,
    /// Number of records so far, which is the nonce of the next one.
    opened: u64,
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opener(..)")
    }
}

impl Opener {
    /// Takes the first record out of `sealed`, and appends what it carries to `plain`. False if the
    /// record is not complete yet.
    ///
    /// # Errors
    ///
    /// If the record is not the next one of the other side.
    pub fn open(
        &mut self,
        sealed: &mut bytes::BytesMut,
        plain: &mut bytes::BytesMut,
    ) -> Result<bool, NoiseError> {
        let Some(&[high, low]) = sealed.first_chunk::<HEADER>() else { return Ok(false) };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let carried = length.checked_sub(TAG).ok_or(NoiseError::Length(length))?;
        if sealed.len() < HEADER + length {
            return Ok(false);
        }
        let record = sealed.split_to(HEADER + length);
        let start = plain.len();
        plain.resize(start + carried, 0);
        let record = record.get(HEADER..).unwrap_or_default();
        let place = plain.get_mut(start..).unwrap_or_default();
        let opened = self.state.read_message(self.opened, record, place);
        opened.map_err(|_| NoiseError::Undecipherable)?;
        self.opened += 1;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::secure::{KnownSeeds, NetworkKeys, Secret};
    use crate::proto::config::Network;
    use bytes::BytesMut;

    const PROLOGUE: &[u8] = b"test";

    fn process(keys: &[&NetworkKey]) -> Security {
        let lines: Vec<String> = keys.iter().map(|key| key.line()).collect();
        let keys = NetworkKeys::parse(&lines.join("\n")).unwrap();
        Security::new(
            keys,
            Secret::fresh().unwrap(),
            KnownSeeds::of(&Network::without_seeds("test")),
        )
    }

    /// Runs a handshake; returns the hello as it was heard, and the sessions of both sides.
    fn meet(
        dialling: &Security,
        accepting: &Security,
    ) -> Result<(Vec<u8>, Session, Session), NoiseError> {
        let (dial, first) = Dialling::begin(dialling, PROLOGUE)?;
        let (accept, second) = Accepting::begin(accepting, PROLOGUE, &first)?;
        let (third, ours) = dial.finish(&second, b"hello")?;
        let (hello, theirs) = accept.finish(&third)?;
        Ok((hello, ours, theirs))
    }

    fn pair() -> (Session, Session) {
        let key = NetworkKey::fresh().unwrap();
        let (_, ours, theirs) = meet(&process(&[&key]), &process(&[&key])).unwrap();
        (ours, theirs)
    }

    #[test]
    fn each_side_learns_who_the_other_is() {
        let key = NetworkKey::fresh().unwrap();
        let (a, b) = (process(&[&key]), process(&[&key]));
        let (hello, ours, theirs) = meet(&a, &b).unwrap();
        assert_eq!(hello, b"hello");
        assert!(ours.is_with(&b.identity()) && theirs.is_with(&a.identity()));
        assert!(!ours.is_with(&a.identity()) && !theirs.is_with(&b.identity()));
    }

    #[test]
    fn keys_change_without_a_stop() {
        let [old, new, foreign] = [(); 3].map(|()| NetworkKey::fresh().unwrap());
        for (dials, accepts, expected) in [
            (vec![&old], vec![&old, &new], true),
            (vec![&old], vec![&new, &old], true),
            (vec![&new, &old], vec![&old, &new], true),
            (vec![&new], vec![&new], true),
            (vec![&old], vec![&new], false),
            (vec![&new, &old], vec![&old], false), // the first one is used to dial
            (vec![&foreign], vec![&old, &new], false),
        ] {
            let met = meet(&process(&dials), &process(&accepts));
            assert_eq!(met.is_ok(), expected, "{met:?}");
        }
    }

    #[test]
    fn another_prologue_is_another_protocol() {
        let key = NetworkKey::fresh().unwrap();
        let (_, first) = Dialling::begin(&process(&[&key]), b"one").unwrap();
        let accepted = Accepting::begin(&process(&[&key]), b"other", &first).map(|_| ());
        assert_eq!(accepted, Err(NoiseError::Undecipherable));
    }

    #[test]
    fn what_is_sealed_is_opened_in_order_and_in_any_pieces() {
        let (mut ours, mut theirs) = pair();
        let records: [&[u8]; 4] = [b"", b"one", &[7; MAX_RECORD], b"last"];
        let mut sealed = Vec::new();
        for record in records {
            ours.sealer.seal(record, &mut sealed).unwrap();
        }
        assert!(!sealed.windows(4).any(|window| window == b"last"));
        let (mut arrived, mut plain) = (BytesMut::new(), BytesMut::new());
        for piece in sealed.chunks(1_000) {
            arrived.extend_from_slice(piece);
            while theirs.opener.open(&mut arrived, &mut plain).unwrap() {}
        }
        assert!(arrived.is_empty());
        assert_eq!(plain, records.concat());
    }

    #[test]
    fn a_record_that_is_changed_repeated_or_swapped_ends_the_link() {
        let wrong: [fn(&mut Vec<Vec<u8>>); 5] = [
            |records| records[0][5] ^= 1,
            |records| records[1] = records[0].clone(),
            |records| records.swap(0, 1),
            |records| {
                records.remove(0);
            },
            |records| records[0][..HEADER].copy_from_slice(&15_u16.to_be_bytes()),
        ];
        for spoil in wrong {
            let (mut ours, mut theirs) = pair();
            let mut records: Vec<Vec<u8>> = vec![Vec::new(); 3];
            for record in &mut records {
                ours.sealer.seal(b"some bytes", record).unwrap();
            }
            spoil(&mut records);
            let (mut arrived, mut plain) = (BytesMut::new(), BytesMut::new());
            arrived.extend_from_slice(&records.concat());
            let opened =
                (0..3).try_for_each(|_| theirs.opener.open(&mut arrived, &mut plain).map(|_| ()));
            assert!(opened.is_err());
        }
        let (mut ours, _) = pair();
        assert!(ours.sealer.seal(&[0; MAX_RECORD + 1], &mut Vec::new()).is_err());
    }
}
