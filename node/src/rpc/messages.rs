//! Messages signed with the key of an address. Core: `src/rpc/signmessage.cpp`, `src/common/signmessage.cpp`.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::Message;
use bitcoin::sign_message::{MessageSignature, signed_msg_hash};
use groat_chain::script::Template;

use super::Rpc;
use super::args::{Arg, Args, Kind};
use super::error::*;
use super::keyexpr::{SECP, private_key};
use super::method::{Answer, Method, answer};
use super::script::from_address;

/// See [`super::method::all`].
pub const METHODS: &[Method] = &[
    Method {
        name: "signmessagewithprivkey",
        group: "util",
        args: &[
            Arg::required("privkey", Kind::Text, "The private key."),
            Arg::required("message", Kind::Text, "The message."),
        ],
        about: "Signs a message; gives the signature in base64.",
        run: signmessagewithprivkey,
    },
    Method {
        name: "verifymessage",
        group: "util",
        args: &[
            Arg::required("address", Kind::Text, "The address of the key, P2PKH."),
            Arg::required("signature", Kind::Text, "The signature in base64."),
            Arg::required("message", Kind::Text, "The message."),
        ],
        about: "Whether the key of an address has signed a message.",
        run: verifymessage,
    },
];

/// With padding or without; the last bits may be anything.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

fn signmessagewithprivkey(rpc: &Rpc, args: &Args) -> Answer {
    let key = private_key(args.text(0).unwrap_or_default(), rpc.node()?.params().address_set.kind());
    let key = key.ok_or_else(|| RpcError::new(RPC_INVALID_ADDRESS_OR_KEY, "Invalid private key"))?;
    let digest = signed_msg_hash(args.text(1).unwrap_or_default()).to_byte_array();
    let signature = SECP.sign_ecdsa_recoverable(&Message::from_digest(digest), &key.inner);
    answer(BASE64.encode(MessageSignature::new(signature, key.compressed).serialize()))
}

fn verifymessage(rpc: &Rpc, args: &Args) -> Answer {
    let script = from_address(args.text(0).unwrap_or_default(), rpc.node()?.params().address_set)
        .ok_or_else(|| RpcError::new(RPC_INVALID_ADDRESS_OR_KEY, "Invalid address"))?;
    if Template::of(&script) != Template::PubKeyHash {
        return Err(RpcError::new(RPC_TYPE_ERROR, "Address does not refer to key"));
    }
    let bytes = BASE64.decode(args.text(1).unwrap_or_default());
    let bytes = bytes.map_err(|_| RpcError::new(RPC_TYPE_ERROR, "Malformed base64 encoding"))?;
    let Ok(signature) = MessageSignature::from_slice(&bytes) else { return answer(false) };
    let hash = signed_msg_hash(args.text(2).unwrap_or_default());
    let key = signature.recover_pubkey(&SECP, hash);
    answer(key.is_ok_and(|key| bitcoin::ScriptBuf::new_p2pkh(&key.pubkey_hash()) == script))
}
