//! The faults of the memory store: what was durable stays, the rest goes in order.

use super::*;
use bitcoin::{Txid, hashes::Hash};

fn key(vout: u32) -> OutPoint {
    OutPoint { txid: Txid::all_zeros(), vout }
}

fn coin(value: u64) -> Coin {
    Coin::from_parts(value, &[1], 1, false)
}

fn put(store: &MemStore, coins: &[(u32, Option<u64>)], durable: bool) {
    let coins = coins.iter().map(|(vout, value)| (key(*vout), value.map(coin))).collect();
    store.write(Batch { coins, ..Batch::default() }, durable).unwrap();
}

fn values(store: &MemStore) -> Vec<(u32, u64)> {
    let mut all = Vec::new();
    let mut each = |outpoint: OutPoint, coin: Coin| {
        all.push((outpoint.vout, coin.value().to_sat()));
        true
    };
    store.for_each_coin(&mut each).unwrap();
    all
}

#[test]
fn a_power_loss_keeps_durable_batches_and_a_prefix_of_the_others() {
    let store = MemStore::new();
    put(&store, &[(1, Some(1)), (2, Some(2))], true);
    put(&store, &[(1, None), (3, Some(3)), (3, Some(4))], false);
    put(&store, &[(2, Some(5)), (1, Some(6))], false);
    assert_eq!(store.volatile_batches(), 2);
    assert_eq!(values(&store.cut(0)), [(1, 1), (2, 2)]);
    assert_eq!(values(&store.cut(1)), [(2, 2), (3, 4)]);
    assert_eq!(values(&store.cut(2)), [(1, 6), (2, 5), (3, 4)]);
    assert_eq!(values(&store), values(&store.cut(9)), "the store itself goes on");
    put(&store, &[], true);
    assert_eq!(values(&store.cut(0)), values(&store), "a durable batch takes those before it along");
}

#[test]
fn a_power_loss_keeps_synced_bytes_only() {
    let store = MemStore::with_file_size(100);
    let kept = store.append_block(&[1; 60]).unwrap();
    let undo = store.append_undo(kept.file, &[2; 5]).unwrap();
    store.sync_files().unwrap();
    let lost = store.append_block(&[3; 60]).unwrap();
    assert_ne!(kept.file, lost.file);
    assert_eq!(store.read_block(lost).unwrap(), [3; 60], "readable at once");
    let after = store.cut(0);
    assert_eq!(after.read_block(kept).unwrap(), [1; 60]);
    assert_eq!(after.read_undo(undo).unwrap(), [2; 5]);
    assert!(matches!(after.read_block(lost), Err(StoreError::Damaged { .. })));
    assert_eq!(after.append_block(&[4; 60]).unwrap(), lost, "the place is free again");
}

#[test]
fn writes_fail_after_the_given_number() {
    let store = MemStore::new();
    store.fail_after(Some(2));
    put(&store, &[(1, Some(1))], false);
    let pos = store.append_block(&[1; 60]).unwrap();
    assert!(store.sync_files().is_err());
    assert!(store.append_block(&[1; 60]).is_err());
    assert!(store.write(Batch::default(), true).is_err());
    assert_eq!(store.read_block(pos).unwrap(), [1; 60], "reads go on");
    store.fail_after(None);
    store.sync_files().unwrap();
}
