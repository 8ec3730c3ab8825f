//! Payloads of every kind of message: any bytes decode or are told to be broken, and what was decoded can be encoded and
//! then decodes to the same.
#![no_main]

use groat_net::message::{Kind, Message};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((which, payload)) = bytes.split_first() else { return };
    let Some(kind) = Kind::all().nth(usize::from(*which)) else { return };
    let message = Message::decode(kind, payload.to_vec());
    match &message {
        Message::Broken { kind: of, .. } => assert_eq!(*of, Some(kind), "which message is broken"),
        Message::Unknown { name, payload: kept } => {
            assert_eq!((name.as_str(), kept.as_slice()), (kind.name(), payload), "a message that is kept as it came");
        }
        message => {
            assert_eq!(message.kind(), Some(kind), "the kind of {message:?}");
            let encoded = message.encode();
            assert_eq!(Message::decode(kind, encoded), *message, "decoded, encoded and decoded again");
        }
    }
});
