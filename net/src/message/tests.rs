//! Every message comes back as it was; nothing that comes in panics or takes memory that its bytes do not justify.

use super::*;
use crate::addr::Host;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::{ScriptBuf, Txid, Witness, Wtxid, transaction};
use proptest::prelude::*;

/// A file of published vectors; none, and says so, where they are not at hand.
pub(crate) fn vector(path: &str) -> Option<Vec<u8>> {
    let top = std::env::var_os("GROAT_DATA").map_or_else(
        || std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
        std::path::PathBuf::from,
    );
    let path = top.join(path);
    let bytes = std::fs::read(&path).ok();
    if bytes.is_none() {
        eprintln!("SKIPPED: no {} (set GROAT_DATA)", path.display());
    }
    bytes
}

pub(crate) fn version() -> Message {
    Message::Version(Box::new(Version {
        version: 70017,
        services: 0x409,
        time: 1_700_000_000,
        receiver: NetAddr { host: Host::V4([8, 7, 6, 5]), port: 8333 },
        nonce: 77,
        user_agent: "/Groat:0.1.0/".into(),
        start_height: 12,
        relay: true,
    }))
}

fn transaction() -> Transaction {
    Transaction {
        version: transaction::Version::TWO,
        lock_time: bitcoin::absolute::LockTime::ZERO,
        input: vec![bitcoin::TxIn { witness: Witness::from_slice(&[vec![1, 2], vec![]]), ..Default::default() }],
        output: vec![bitcoin::TxOut { value: bitcoin::Amount::from_sat(5), script_pubkey: ScriptBuf::new() }],
    }
}

fn header() -> Header {
    deserialize(&[3; 80]).expect("any 80 bytes are a header")
}

pub(crate) fn kinds() -> Vec<Kind> {
    Kind::all().collect()
}

pub(crate) fn samples() -> Vec<Message> {
    let hash = BlockHash::from_byte_array([4; 32]);
    let entry = |host| AddrEntry { time: 5, services: 9, addr: NetAddr { host, port: 1000 } };
    let v1 = vec![entry(Host::V4([1, 2, 3, 4])), entry(Host::V6([9; 16]))];
    let mut cjdns = [1; 16];
    cjdns[0] = 0xfc;
    let v2 = [entry(Host::TorV3([2; 32])), entry(Host::I2p([3; 32])), entry(Host::Cjdns(cjdns))];
    let items = vec![
        Inventory::WTx(Wtxid::from_byte_array([1; 32])),
        Inventory::WitnessTransaction(Txid::from_byte_array([1; 32])),
        Inventory::WitnessBlock(hash),
        Inventory::Unknown { inv_type: 99, hash: [7; 32] },
    ];
    let locate = Locate { locator: vec![hash; MAX_LOCATOR_SZ], stop: hash };
    let request = BlockTransactionsRequest { block_hash: hash, indexes: vec![0, 1, 7, 300] };
    let compact = HeaderAndShortIds {
        header: header(),
        nonce: 8,
        short_ids: vec![deserialize(&[1; 6]).expect("six bytes")],
        prefilled_txs: vec![bitcoin::bip152::PrefilledTransaction { idx: 0, tx: transaction() }],
    };
    vec![
        version(),
        Message::Verack,
        Message::WtxidRelay,
        Message::SendAddrV2,
        Message::SendHeaders,
        Message::SendTxRcncl { version: 1, salt: 2 },
        Message::Feature { id: b"four".to_vec(), data: Vec::new() },
        Message::SendCmpct { announce: 1, version: 2 },
        Message::FeeFilter(-1),
        Message::Ping(1),
        Message::Pong(2),
        Message::GetAddr,
        Message::Addr(v1.clone()),
        Message::AddrV2(v1.into_iter().chain(v2).collect()),
        Message::Inv(items.clone()),
        Message::GetData(items.clone()),
        Message::NotFound(items),
        Message::GetBlocks(locate.clone()),
        Message::GetHeaders(locate),
        Message::Headers(vec![header(); MAX_HEADERS_RESULTS]),
        Message::Tx(Arc::new(transaction())),
        Message::Block(Arc::new(vec![1; 100])),
        Message::CmpctBlock(Arc::new(compact)),
        Message::GetBlockTxn(request),
        Message::BlockTxn(BlockTransactions { block_hash: hash, transactions: vec![transaction(); 2] }),
        Message::MemPool,
        Message::FilterAdd(vec![1, 2]),
        Message::FilterClear,
        Message::GetCFCheckpt(GetCFCheckpt { filter_type: 0, stop_hash: hash }),
        Message::CFilter(CFilter { filter_type: 0, block_hash: hash, filter: vec![1; 9] }),
    ]
}

#[test]
fn every_message_comes_back() {
    for message in samples() {
        let kind = message.kind().expect("a known kind");
        assert_eq!(Message::decode(kind, message.encode()), message);
    }
}

#[test]
fn transactions_without_inputs_or_outputs_are_counted_as_others() {
    let hash = BlockHash::from_byte_array([4; 32]);
    for input in [vec![bitcoin::TxIn::default()], Vec::new()] {
        let empty = Transaction { input, output: Vec::new(), ..transaction() };
        let message = Message::BlockTxn(BlockTransactions { block_hash: hash, transactions: vec![empty; 3] });
        assert_eq!(Message::decode(Kind::BlockTxn, message.encode()), message);
    }
}

#[test]
fn kinds_have_names_and_short_ids_of_the_bip() {
    for (at, (kind, name, _)) in KINDS.iter().enumerate() {
        assert_eq!(*kind as usize, at, "{name}");
        assert_eq!(Kind::from_name(name), Some(*kind));
        assert_eq!(kind.short_id().map_or(Some(*kind), Kind::from_short_id), Some(*kind));
    }
    assert_eq!(Kind::from_short_id(0), None);
    assert_eq!(
        (Kind::Tx.short_id(), Kind::AddrV2.short_id(), Kind::Feature.short_id()),
        (Some(21), Some(28), Some(37))
    );
    assert_eq!(Kind::Version.short_id(), None);
}

#[test]
fn more_entries_than_allowed_are_counted_and_not_decoded() {
    for (kind, cap, size) in [
        (Kind::Inv, MAX_INV_SZ, 36),
        (Kind::GetData, MAX_INV_SZ, 36),
        (Kind::Headers, MAX_HEADERS_RESULTS, 81),
        (Kind::Addr, MAX_ADDR_TO_SEND, 30),
    ] {
        let payload = |count: usize| {
            let mut bytes = serialize(&bitcoin::VarInt::from(count));
            bytes.resize(bytes.len() + count * size, 0);
            bytes
        };
        let too_many = Message::Broken { kind: Some(kind), fault: Fault::TooMany(cap as u64 + 1) };
        assert_eq!(Message::decode(kind, payload(cap + 1)), too_many, "{kind:?}");
        assert_eq!(Message::decode(kind, payload(cap)).kind(), Some(kind));
        assert!(!matches!(Message::decode(kind, payload(cap)), Message::Broken { .. }), "{kind:?} at its cap");
    }
    let mut locate = vec![0; 4];
    locate.push(102);
    locate.resize(5 + 103 * 32, 0);
    let broken = Message::Broken { kind: Some(Kind::GetHeaders), fault: Fault::TooMany(102) };
    assert_eq!(Message::decode(Kind::GetHeaders, locate), broken);
}

#[test]
fn a_version_may_end_after_the_receiver() {
    let whole = version().encode();
    let Message::Version(short) = Message::decode(Kind::Version, whole[..46].to_vec()) else { panic!("a version") };
    assert_eq!((short.nonce, short.start_height, short.relay, short.user_agent.as_str()), (1, -1, true, ""));
    let broken = Message::Broken { kind: Some(Kind::Version), fault: Fault::Malformed };
    assert_eq!(Message::decode(Kind::Version, whole[..45].to_vec()), broken);
}

#[test]
fn a_user_agent_is_short_and_harmless() {
    let Message::Version(mut long) = version() else { panic!("a version") };
    long.user_agent = "a".repeat(257);
    let broken = Message::Broken { kind: Some(Kind::Version), fault: Fault::Malformed };
    assert_eq!(Message::decode(Kind::Version, Message::Version(long.clone()).encode()), broken);
    long.user_agent = "a\x1b[31m<b>".into();
    let Message::Version(safe) = Message::decode(Kind::Version, Message::Version(long).encode()) else { panic!() };
    assert_eq!(safe.user_agent, "a31mb");
}

#[test]
fn addresses_have_the_length_of_their_network() {
    let entry = |network: u8, length: usize| {
        let mut bytes = vec![1, 0, 0, 0, 0, 0, network, length as u8];
        bytes.resize(8 + length + 2, 0xfc);
        Message::decode(Kind::AddrV2, bytes)
    };
    let broken = Message::Broken { kind: Some(Kind::AddrV2), fault: Fault::Malformed };
    for (network, right) in [(1, 4), (2, 16), (4, 32), (5, 32), (6, 16)] {
        assert!(matches!(entry(network, right), Message::AddrV2(list) if list.len() == 1), "network {network}");
        assert_eq!(entry(network, right + 1), broken, "network {network}");
    }
    assert_eq!(entry(77, 20), Message::AddrV2(Vec::new()));
}

#[test]
fn a_feature_breaks_no_bound() {
    let feature = |id: usize, data: usize| {
        Message::decode(Kind::Feature, Message::Feature { id: vec![b'x'; id], data: vec![0; data] }.encode())
    };
    for (id, data, fine) in [(4, 0, true), (80, 512, true), (3, 0, false), (81, 0, false), (4, 513, false)] {
        assert_eq!(matches!(feature(id, data), Message::Feature { .. }), fine, "{id} and {data} bytes");
    }
}

#[test]
fn a_witness_that_claims_millions_of_items_is_refused_unread() {
    let mut bytes = serialize(&transaction());
    let at = bytes.len() - 4 - 5;
    assert_eq!(bytes[at], 2, "the count of witness items");
    bytes.splice(at..=at, serialize(&bitcoin::VarInt(4_000_000)));
    let broken = Message::Broken { kind: Some(Kind::Tx), fault: Fault::Malformed };
    assert_eq!(Message::decode(Kind::Tx, bytes), broken);
}

proptest! {
    #[test]
    fn no_payload_panics(which in 0..KINDS.len(), bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let kind = KINDS[which].0;
        let decoded = Message::decode(kind, bytes);
        // What was understood can be said again and means the same.
        if !matches!(decoded, Message::Broken { .. } | Message::Unknown { .. }) {
            prop_assert_eq!(Message::decode(kind, decoded.encode()), decoded);
        }
    }

    #[test]
    fn a_damaged_payload_never_panics(which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let all = samples();
        let message = which.get(&all);
        let mut payload = message.encode();
        if !payload.is_empty() {
            let at = at.index(payload.len());
            payload[at] = byte;
        }
        let _ = Message::decode(message.kind().expect("a known kind"), payload);
    }
}
