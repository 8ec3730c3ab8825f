//! The disk store answers as the memory store does, before and after reopening, and refuses what it should.

use super::*;
use crate::store::mem::MemStore;
use bitcoin::{Txid, block::Header, hashes::Hash};
use proptest::prelude::*;

const MAGIC: [u8; 4] = [1, 2, 3, 4];

fn open(folder: &Path) -> Result<RocksStore, StoreError> {
    RocksStore::open(folder, MAGIC, 8 << 20, false)
}

fn sentence(result: Result<RocksStore, StoreError>) -> String {
    result.err().expect("opening must fail").to_string()
}

fn key(number: u8) -> OutPoint {
    OutPoint { txid: Txid::from_byte_array([number % 7; 32]), vout: u32::from(number) * 30 }
}

fn coin(value: u64) -> Coin {
    Coin::from_parts(value, &vec![0x51; value as usize % 50], 7, value.is_multiple_of(2))
}

fn record(number: u32, block: Option<FilePos>, undo: Option<FilePos>) -> HeaderRecord {
    let header: Header = bitcoin::consensus::deserialize(&[number as u8; 80]).unwrap();
    HeaderRecord { header, status: 3, tx_count: number, size: 5, block, undo }
}

/// All that a store answers: coins, headers, and the fact "tip".
type Contents = (Vec<(OutPoint, Coin)>, Vec<(u32, HeaderRecord)>, Option<Vec<u8>>);

fn contents(store: &dyn Store) -> Contents {
    let (mut coins, mut headers) = (Vec::new(), Vec::new());
    store
        .for_each_coin(&mut |key, coin| {
            coins.push((key, coin));
            true
        })
        .unwrap();
    store.for_each_header(&mut |number, record| headers.push((number, record))).unwrap();
    let all: Vec<_> = (0..=255).rev().map(key).collect();
    let one_by_one: Vec<_> = all.iter().map(|key| store.coins(&[*key]).unwrap().remove(0)).collect();
    assert_eq!(store.coins(&all).unwrap(), one_by_one, "looked up together and one by one");
    let found = one_by_one.into_iter().flatten().count();
    assert_eq!(found, coins.len(), "looked up and listed");
    (coins, headers, store.meta("tip").unwrap())
}

type Written = (Vec<(u8, Option<u64>)>, Vec<u32>, Option<Option<u8>>, bool);

fn batch((coins, headers, tip, _): &Written) -> Batch {
    Batch {
        coins: coins.iter().map(|(number, value)| (key(*number), value.map(coin))).collect(),
        headers: headers.iter().map(|number| (*number, record(*number, None, None))).collect(),
        meta: tip.iter().map(|tip| ("tip", tip.map(|byte| vec![byte]))).collect(),
        ..Batch::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    #[test]
    fn disk_and_memory_answer_alike(batches in prop::collection::vec((
        prop::collection::vec((any::<u8>(), prop::option::of(0..5_000_000_000_u64)), 0..60),
        prop::collection::vec(0..70_000_u32, 0..5),
        prop::option::of(prop::option::of(any::<u8>())),
        any::<bool>(),
    ), 1..6)) {
        let folder = tempfile::tempdir().unwrap();
        let memory = MemStore::new();
        for written in &batches {
            // Opened anew for each batch: what was written without `durable` outlives the process too.
            let disk = open(folder.path()).unwrap();
            disk.write(batch(written), written.3).unwrap();
            memory.write(batch(written), written.3).unwrap();
            prop_assert_eq!(contents(&disk), contents(&memory));
        }
        let disk = open(folder.path()).unwrap();
        prop_assert_eq!(contents(&disk), contents(&memory), "reopened");
        disk.clear_coins().unwrap();
        prop_assert_eq!(contents(&disk).0, []);
        prop_assert_eq!(contents(&disk).1, contents(&memory).1, "clearing coins leaves headers");
        disk.write(batch(&batches[0]), true).unwrap();
        prop_assert!(batches[0].0.iter().all(|(_, value)| value.is_none()) || !contents(&disk).0.is_empty());
    }
}

#[test]
fn a_scan_stops_when_told_and_sees_one_moment() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    let all = (0..100).map(|number| (key(number), Some(coin(1)))).collect();
    store.write(Batch { coins: all, ..Batch::default() }, false).unwrap();
    let mut seen = 0;
    store
        .for_each_coin(&mut |_, _| {
            if seen == 0 {
                let gone = (0..100).map(|number| (key(number), None)).collect();
                store.write(Batch { coins: gone, ..Batch::default() }, false).unwrap();
            }
            seen += 1;
            seen < 60
        })
        .unwrap();
    assert_eq!(seen, 60, "coins seen of a snapshot of 100, though all were deleted meanwhile");
}

#[test]
fn a_second_opening_is_refused_with_the_pid() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    let expected = format!(
        "Cannot obtain a lock on directory {}. Groat is probably already running (pid {}).",
        folder.path().display(),
        std::process::id()
    );
    assert_eq!(sentence(open(folder.path())), expected);
    drop(store);
    open(folder.path()).unwrap();
}

#[test]
fn an_unknown_schema_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    store.db.put_cf(&store.family(META), SCHEMA_KEY, 9_u32.to_le_bytes()).unwrap();
    drop(store);
    let said = sentence(open(folder.path()));
    assert!(said.contains("has schema 9, and this version of groatd reads schema 1 only"), "{said}");
    RocksStore::open(folder.path(), MAGIC, 8 << 20, true).expect("--reindex is the way out");
}

#[test]
fn damaged_records_name_themselves_and_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    store.db.put_cf(&store.family(COINS), codec::encode_outpoint(&key(3)), [0xff]).unwrap();
    store.db.put_cf(&store.family(HEADERS), 5_u32.to_be_bytes(), [1, 2]).unwrap();
    for said in [store.coins(&[key(3)]), store.coins(&[key(1), key(3)])] {
        let said = said.expect_err("a damaged coin").to_string();
        assert!(said.starts_with(&format!("the coin record {} is damaged", key(3))), "{said}");
        assert!(said.ends_with("start with --reindex-chainstate"), "{said}");
    }
    let said = store.for_each_coin(&mut |_, _| true).expect_err("a damaged coin").to_string();
    assert!(said.ends_with("start with --reindex-chainstate"), "{said}");
    let said = store.for_each_header(&mut |_, _| {}).expect_err("a damaged header").to_string();
    assert!(said.starts_with("the header record 5 is damaged") && said.ends_with("start with --reindex"), "{said}");
}

#[test]
fn files_are_cut_to_what_records_refer_to() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    let kept = store.append_block(&[1; 100]).unwrap();
    let undo = store.append_undo(kept.file, b"undo").unwrap();
    // The caller forgot to sync; the store does not.
    let headers = vec![(0, record(0, Some(kept), Some(undo)))];
    store.write(Batch { headers, ..Batch::default() }, true).unwrap();
    assert!(store.files.is_synced(Some(kept), Some(undo)));
    let lost = store.append_block(&[2; 100]).unwrap();
    drop(store);

    let store = open(folder.path()).unwrap();
    assert_eq!(store.read_block(kept).unwrap(), [1; 100]);
    assert_eq!(store.read_undo(undo).unwrap(), b"undo");
    assert!(store.read_block(lost).is_err());
    assert_eq!(store.append_block(&[3; 90]).unwrap(), lost);
    store.sync_files().unwrap();
    drop(store);

    // Rebuilding keeps every whole block, referred to or not (nobody can tell), and drops the undo.
    let store = open(folder.path()).unwrap();
    drop(store);
    let store = RocksStore::open(folder.path(), MAGIC, 8 << 20, true).unwrap();
    assert_eq!(store.read_block(kept).unwrap(), [1; 100]);
    assert!(store.read_undo(undo).is_err());
    assert_eq!(store.append_undo(kept.file, b"again").unwrap(), undo);
    let mut headers = 0;
    store.for_each_header(&mut |_, _| headers += 1).unwrap();
    assert_eq!(headers, 0);
}

#[test]
fn free_space_is_known() {
    let folder = tempfile::tempdir().unwrap();
    assert!(open(folder.path()).unwrap().free_space().unwrap() > Some(0));
}
