//! Bytes of a connection: frames, openings, answers and messages.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use rumormill::net::codec;

fuzz_target!(|data: &[u8]| {
    let _ = codec::decode_opening(data);
    let _ = codec::decode_inner_hello(data);
    let _ = codec::decode_answer(data);
    if let Ok(message) = codec::decode(data) {
        // What can be heard can be said, and is then heard again as the same.
        let mut bytes = Vec::new();
        if codec::encode(&message, &mut bytes).is_ok() {
            assert_eq!(codec::decode(&bytes[codec::HEADER..]).ok(), Some(message));
        }
    }
    for mut frames in [codec::frames(), codec::opening_frames()] {
        let mut buffer = BytesMut::from(data);
        while let Ok(Some(_)) = codec::next_frame(&mut frames, &mut buffer) {}
    }
});
