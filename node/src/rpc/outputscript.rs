//! Methods about addresses, scripts and descriptors that ask nothing of the chain. Core: `src/rpc/output_script.cpp`,
//! `src/rpc/rawtransaction.cpp`.

use std::collections::HashSet;

use bitcoin::hashes::Hash;
use bitcoin::{PublicKey, Script, ScriptBuf, WPubkeyHash};
use groat_chain::params::AddressSet;
use groat_chain::rules::block::is_unspendable;
use groat_chain::script::opcode::*;
use groat_chain::script::{MAX_PUBKEYS_PER_MULTISIG, MAX_SCRIPT_ELEMENT_SIZE, Template};
use hex::{DisplayHex, FromHex};
use serde::Serialize;
use serde_json::Value;

use super::Rpc;
use super::address::decode_address;
use super::args::{Arg, Args, Kind, text, wrong_type};
use super::descriptor::{Descriptor, Output, checksum, multisig, with_checksum};
use super::error::*;
use super::fragment::infer_witness_script;
use super::keyexpr::hex_of;
use super::method::{Answer, Method, answer};
use super::script::{ScriptPubKey, address_of};

/// See [`super::method::all`].
pub const METHODS: &[Method] = &[
    Method {
        name: "validateaddress",
        group: "util",
        args: &[Arg::required("address", Kind::Text, "The address.")],
        about: "Whether text is an address of this chain, what it stands for, and where it may be mistyped.",
        run: validateaddress,
    },
    Method {
        name: "createmultisig",
        group: "util",
        args: &[
            Arg::required("nrequired", Kind::Number, "How many signatures it takes."),
            Arg::required("keys", Kind::Array("\"key\""), "Public keys in hex."),
            Arg::optional("address_type", Kind::Text, "legacy (default), p2sh-segwit or bech32."),
        ],
        about: "The address and script of an output that several keys share.",
        run: createmultisig,
    },
    Method {
        name: "deriveaddresses",
        group: "util",
        args: &[
            Arg::required("descriptor", Kind::Text, "The descriptor, with its checksum."),
            Arg::optional("range", Kind::Loose("range"), "The last index, or [first,last], of a ranged descriptor."),
        ],
        about: "The addresses of a descriptor.",
        run: deriveaddresses,
    },
    Method {
        name: "getdescriptorinfo",
        group: "util",
        args: &[Arg::required("descriptor", Kind::Text, "The descriptor.")],
        about: "A descriptor in canonical form with its checksum, without private keys, and what it is.",
        run: getdescriptorinfo,
    },
    Method {
        name: "decodescript",
        group: "rawtransactions",
        args: &[Arg::required("hexstring", Kind::Hex, "The script.")],
        about: "Shows a script, and the addresses of outputs that commit to it.",
        run: decodescript,
    },
];

fn validateaddress(rpc: &Rpc, args: &Args) -> Answer {
    #[derive(Default, Serialize)]
    struct Address {
        isvalid: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        address: Option<String>,
        #[serde(rename = "scriptPubKey", skip_serializing_if = "Option::is_none")]
        script_pubkey: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        isscript: Option<bool>,
        #[serde(skip_serializing_if = "Option::is_none")]
        iswitness: Option<bool>,
        #[serde(skip_serializing_if = "Option::is_none")]
        witness_version: Option<u8>,
        #[serde(skip_serializing_if = "Option::is_none")]
        witness_program: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        error_locations: Option<Vec<usize>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    }
    let addresses = rpc.node()?.params().address_set;
    let script = match decode_address(args.text(0).unwrap_or_default(), addresses) {
        Ok(script) => script,
        Err(wrong) => {
            let (error_locations, error) = (Some(wrong.places), Some(wrong.error));
            return answer(Address { error_locations, error, ..Address::default() });
        }
    };
    let kind = Template::of(&script);
    let program = witness_program(script.as_bytes()).filter(|_| kind != Template::Anchor);
    answer(Address {
        isvalid: true,
        address: address_of(&script, addresses),
        script_pubkey: Some(script.to_hex_string()),
        isscript: match kind {
            Template::WitnessUnknown => None,
            kind => Some(!matches!(kind, Template::PubKeyHash | Template::WitnessV0KeyHash)),
        },
        iswitness: Some(script.is_witness_program()),
        witness_version: program.map(|(version, _)| version),
        witness_program: program.map(|(_, program)| program.to_lower_hex_string()),
        ..Address::default()
    })
}

fn createmultisig(rpc: &Rpc, args: &Args) -> Answer {
    #[derive(Serialize)]
    struct Multisig {
        address: Option<String>,
        #[serde(rename = "redeemScript")]
        redeem_script: String,
        descriptor: String,
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        warnings: &'static [&'static str],
    }
    let required = args.int::<i32>(0)?.unwrap_or_default();
    let given = args.get(1).as_array().map(Vec::as_slice).unwrap_or_default();
    let keys = given.iter().map(public_key).collect::<Result<Vec<_>, _>>()?;
    let unknown = |text: String| RpcError::new(RPC_INVALID_ADDRESS_OR_KEY, text);
    let wanted = match args.text(2).unwrap_or("legacy") {
        "legacy" => "sh",
        "p2sh-segwit" => "sh(wsh",
        "bech32" => "wsh",
        "bech32m" => return Err(unknown("createmultisig cannot create bech32m multisig addresses".into())),
        other => return Err(unknown(format!("Unknown address type '{other}'"))),
    };
    let refuse = |text: String| RpcError::new(RPC_INVALID_PARAMETER, text);
    let required = usize::try_from(required).ok().filter(|required| *required > 0);
    let required =
        required.ok_or_else(|| refuse("a multisignature address must require at least one key to redeem".into()))?;
    if keys.len() < required {
        let (count, text) = (keys.len(), "not enough keys supplied");
        return Err(refuse(format!("{text} (got {count} keys, but need at least {required} to redeem)")));
    }
    if keys.len() > MAX_PUBKEYS_PER_MULTISIG {
        let text = "Number of keys involved in the multisignature address creation";
        return Err(refuse(format!("{text} > {MAX_PUBKEYS_PER_MULTISIG}\nReduce the number")));
    }
    let script = multisig(required, &keys);
    // Witness scripts take no uncompressed keys.
    let form = if keys.iter().all(|key| key.compressed) { wanted } else { "sh" };
    if form == "sh" && script.len() > MAX_SCRIPT_ELEMENT_SIZE {
        let length = script.len();
        return Err(refuse(format!("redeemScript exceeds size limit: {length} > {MAX_SCRIPT_ELEMENT_SIZE}")));
    }
    let output = match form {
        "sh" => script.to_p2sh(),
        "wsh" => script.to_p2wsh(),
        _ => script.to_p2wsh().to_p2sh(),
    };
    let shown: String = keys.iter().map(|key| format!(",{}", hex_of(key, false))).collect();
    let end = if form == "sh(wsh" { "))" } else { ")" };
    answer(Multisig {
        address: address_of(&output, rpc.node()?.params().address_set),
        redeem_script: script.to_hex_string(),
        descriptor: with_checksum(&format!("{form}(multi({required}{shown}){end}")),
        warnings: match form == wanted {
            true => &[],
            false => &["Unable to make chosen address type, please ensure no uncompressed public keys are present."],
        },
    })
}

/// Core: `HexToPubKey`.
fn public_key(given: &Value) -> Result<PublicKey, RpcError> {
    let hex = text(given)?;
    let refuse = |what| RpcError::new(RPC_INVALID_ADDRESS_OR_KEY, format!("Pubkey \"{hex}\" must {what}"));
    let bytes = Vec::from_hex(hex).ok().filter(|bytes| !bytes.is_empty());
    let bytes = bytes.ok_or_else(|| refuse("be a hex string"))?;
    if !matches!(bytes.len(), 33 | 65) {
        return Err(refuse("have a length of either 33 or 65 bytes"));
    }
    PublicKey::from_slice(&bytes).map_err(|_| refuse("be cryptographically valid."))
}

fn getdescriptorinfo(rpc: &Rpc, args: &Args) -> Answer {
    #[derive(Serialize)]
    struct Info {
        descriptor: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        multipath_expansion: Option<Vec<String>>,
        checksum: String,
        isrange: bool,
        issolvable: bool,
        hasprivatekeys: bool,
    }
    let given = args.text(0).unwrap_or_default();
    let descriptor = parse(given, rpc.node()?.params().address_set, false)?;
    let all = (0..descriptor.branches()).map(|branch| descriptor.text(branch));
    answer(Info {
        descriptor: descriptor.text(0),
        multipath_expansion: (descriptor.branches() > 1).then(|| all.collect()),
        checksum: given.split('#').next().and_then(checksum).unwrap_or_default(),
        isrange: descriptor.is_range(),
        issolvable: descriptor.is_solvable(),
        hasprivatekeys: descriptor.has_private_keys(),
    })
}

fn parse(text: &str, addresses: AddressSet, with_checksum: bool) -> Result<Descriptor, RpcError> {
    Descriptor::parse(text, addresses, with_checksum).map_err(|text| RpcError::new(RPC_INVALID_ADDRESS_OR_KEY, text))
}

fn deriveaddresses(rpc: &Rpc, args: &Args) -> Answer {
    let addresses = rpc.node()?.params().address_set;
    let range = Some(args.get(1)).filter(|range| !range.is_null()).map(range).transpose()?;
    let descriptor = parse(args.text(0).unwrap_or_default(), addresses, true)?;
    let refuse = |text| RpcError::new(RPC_INVALID_PARAMETER, text);
    let given = args.all().len() > 1;
    if !descriptor.is_range() && given {
        return Err(refuse("Range should not be specified for an un-ranged descriptor"));
    }
    if descriptor.is_range() && !given {
        return Err(refuse("Range must be specified for a ranged descriptor"));
    }
    let (first, last) = range.unwrap_or((0, 0));
    let mut all = Vec::new();
    for branch in 0..descriptor.branches() {
        let mut found = Vec::new();
        for index in first..=last {
            let outputs = outputs(&descriptor, branch, index, String::new)?;
            for output in &outputs {
                match address_of(&output.script, addresses) {
                    Some(address) => found.push(address),
                    // combo() has a bare key beside those that have addresses.
                    None if outputs.len() > 1 => {}
                    None => {
                        let text = "Descriptor does not have a corresponding address";
                        return Err(RpcError::new(RPC_INVALID_ADDRESS_OR_KEY, text));
                    }
                }
            }
        }
        all.push(found);
    }
    if all.len() == 1 { answer(&all[0]) } else { answer(all) }
}

/// `whose` ends the error's text.
fn outputs(
    descriptor: &Descriptor,
    branch: usize,
    index: u32,
    whose: impl Fn() -> String,
) -> Result<Vec<Output>, RpcError> {
    descriptor.at(branch, index).ok_or_else(|| {
        let text = format!("Cannot derive script without private keys{}", whose());
        RpcError::new(RPC_INVALID_ADDRESS_OR_KEY, text)
    })
}

/// First and last index. Core: `ParseDescriptorRange`.
fn range(given: &Value) -> Result<(u32, u32), RpcError> {
    let refuse = |text| RpcError::new(RPC_INVALID_PARAMETER, text);
    let whole =
        |value: &Value| value.as_i64().ok_or_else(|| RpcError::new(RPC_MISC_ERROR, "JSON integer out of range"));
    let (first, last) = match given {
        Value::Number(_) => (0, whole(given)?),
        Value::Array(ends) => match &ends[..] {
            [first @ Value::Number(_), last @ Value::Number(_)] => (whole(first)?, whole(last)?),
            _ => return Err(refuse("Range must be specified as end or as [begin,end]")),
        },
        _ => return Err(refuse("Range must be specified as end or as [begin,end]")),
    };
    if first > last && given.is_array() {
        return Err(refuse("Range specified as [begin,end] must not have begin after end"));
    }
    let Ok(begin) = u32::try_from(first) else {
        return Err(refuse(if first < 0 {
            "Range should be greater or equal than 0"
        } else {
            "End of range is too high"
        }));
    };
    if last >> 31 != 0 {
        return Err(refuse("End of range is too high"));
    }
    if last >= first + 1_000_000 {
        return Err(refuse("Range is too large"));
    }
    Ok((begin, last as u32))
}

/// The scripts of a descriptor, or of an object with a descriptor and a range of indices, 0 to 1000 if it names none.
/// Core: `EvalDescriptorStringOrObject`.
pub fn scan_object(given: &Value, addresses: AddressSet) -> Result<Vec<Output>, RpcError> {
    let refuse = |text| RpcError::new(RPC_INVALID_PARAMETER, text);
    let (descriptor_text, range) = match given {
        Value::String(text) => (text.as_str(), &Value::Null),
        Value::Object(fields) => {
            let descriptor = fields.get("desc").filter(|descriptor| !descriptor.is_null());
            let descriptor = descriptor.ok_or_else(|| refuse("Descriptor needs to be provided in scan object"))?;
            (text(descriptor)?, fields.get("range").unwrap_or(&Value::Null))
        }
        _ => return Err(refuse("Scan object needs to be either a string or an object")),
    };
    let range = if range.is_null() { (0, 1000) } else { self::range(range)? };
    let descriptor = parse(descriptor_text, addresses, false)?;
    let (first, last) = if descriptor.is_range() { range } else { (0, 0) };
    let mut all = Vec::new();
    for index in first..=last {
        for branch in 0..descriptor.branches() {
            all.extend(outputs(&descriptor, branch, index, || format!(": '{descriptor_text}'"))?);
        }
    }
    Ok(all)
}

/// The scripts of a list of such objects.
pub fn scan_scripts(objects: &Value, addresses: AddressSet) -> Result<HashSet<ScriptBuf>, RpcError> {
    let objects = objects.as_array().ok_or_else(|| wrong_type(objects, "array"))?;
    let mut scripts = HashSet::new();
    for object in objects {
        scripts.extend(scan_object(object, addresses)?.into_iter().map(|output| output.script));
    }
    Ok(scripts)
}

/// The script that a new block pays to. Core: `getScriptFromDescriptor`.
pub fn single_script(given: &str, addresses: AddressSet) -> Result<ScriptBuf, RpcError> {
    let refuse = |text| RpcError::new(RPC_INVALID_PARAMETER, text);
    let descriptor = parse(given, addresses, false)?;
    if descriptor.branches() > 1 {
        return Err(refuse("Multipath descriptor not accepted"));
    }
    if descriptor.is_range() {
        return Err(refuse("Ranged descriptor not accepted. Maybe pass through deriveaddresses first?"));
    }
    let mut outputs = outputs(&descriptor, 0, 0, String::new)?;
    // Of combo() it is P2WPKH, or P2PKH where the key is uncompressed.
    let chosen = [0, 0, 1, 1, 2][outputs.len().min(4)];
    Ok(outputs.swap_remove(chosen).script)
}

fn decodescript(rpc: &Rpc, args: &Args) -> Answer {
    #[derive(Serialize)]
    struct Decoded {
        #[serde(flatten)]
        shown: ScriptPubKey,
        #[serde(skip_serializing_if = "Option::is_none")]
        p2sh: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        segwit: Option<Segwit>,
    }
    #[derive(Serialize)]
    struct Segwit {
        #[serde(flatten)]
        shown: ScriptPubKey,
        #[serde(rename = "p2sh-segwit")]
        p2sh_segwit: Option<String>,
    }
    let addresses = rpc.node()?.params().address_set;
    let hex = args.text(0).unwrap_or_default();
    let script = ScriptBuf::from_hex(hex).map_err(|_| {
        RpcError::new(RPC_INVALID_PARAMETER, format!("argument must be hexadecimal string (not '{hex}')"))
    })?;
    let kind = Template::of(&script);
    let segwit = can_be_wrapped(&script, &kind).then(|| witness_output(&script, &kind)).flatten();
    answer(Decoded {
        shown: ScriptPubKey::new(&script, addresses).without_hex(),
        p2sh: can_be_wrapped(&script, &kind).then(|| address_of(&script.to_p2sh(), addresses)).flatten(),
        segwit: segwit.map(|(output, inside)| {
            let shown = ScriptPubKey::new(&output, addresses);
            Segwit {
                shown: match inside {
                    Some(inside) => shown.described(with_checksum(&format!("wsh({inside})"))),
                    None => shown,
                },
                p2sh_segwit: address_of(&output.to_p2sh(), addresses),
            }
        }),
    })
}

/// Whether P2SH of this script is of use.
fn can_be_wrapped(script: &Script, kind: &Template<'_>) -> bool {
    let of_use = match kind {
        Template::Multisig(..) | Template::NonStandard | Template::PubKey(_) | Template::PubKeyHash => true,
        Template::WitnessV0KeyHash | Template::WitnessV0ScriptHash => true,
        Template::NullData | Template::ScriptHash | Template::Anchor => false,
        Template::WitnessUnknown | Template::WitnessV1Taproot(_) => false,
    };
    let known = |op: Result<Op<'_>, Truncated>| {
        op.is_ok_and(|op| {
            let valid = op.code <= MAX_OPCODE && op.data.len() <= MAX_SCRIPT_ELEMENT_SIZE;
            valid && op.code != OP_CHECKSIGADD && !is_op_success(op.code)
        })
    };
    of_use && !is_unspendable(script) && Cursor::new(script.as_bytes()).all(known)
}

/// Core: `MAX_OPCODE`.
const MAX_OPCODE: u8 = 0xb9;

/// The witness output that stands for this script, with the descriptor of the script within, where there is one.
fn witness_output(script: &Script, kind: &Template<'_>) -> Option<(ScriptBuf, Option<String>)> {
    let compressed = |key: &[u8]| key.len() == 33;
    match kind {
        Template::PubKey(key) if compressed(key) => Some((ScriptBuf::new_p2wpkh(&WPubkeyHash::hash(key)), None)),
        Template::PubKeyHash => {
            let hash: [u8; 20] = script.as_bytes()[3..23].try_into().ok()?;
            Some((ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array(hash)), None))
        }
        Template::Multisig(required, keys) if keys.iter().all(|key| compressed(key)) => {
            let keys: String = keys.iter().map(|key| format!(",{}", key.as_hex())).collect();
            Some((script.to_p2wsh(), Some(format!("multi({required}{keys})"))))
        }
        Template::NonStandard => Some((script.to_p2wsh(), infer_witness_script(script))),
        _ => None,
    }
}
