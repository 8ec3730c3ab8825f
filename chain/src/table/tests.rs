//! The table against a plain map of all unspent coins, over a store that is written late and piecemeal.

use super::*;
use bitcoin::{Txid, hashes::Hash};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::convert::Infallible;

fn outpoint(key: u8) -> OutPoint {
    // Few first bytes (shards) and few txids, so that keys collide in each part of the key.
    let mut txid = [7; 32];
    (txid[0], txid[9]) = (key % 3, key % 5);
    OutPoint { txid: Txid::from_byte_array(txid), vout: u32::from(key) }
}

fn coin(number: u32) -> Coin {
    let script = vec![number as u8; number as usize % 60];
    Coin::from_parts(u64::from(number), &script, number, number.is_multiple_of(7))
}

#[derive(Clone, Debug)]
enum Step {
    Create(u8),
    Overwrite(u8),
    Spend(u8),
    UndoLast,
    Freeze,
    WriteSome(u8),
    FinishWriting,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..40_u8).prop_map(Step::Create),
        2 => (0..40_u8).prop_map(Step::Overwrite),
        10 => (0..40_u8).prop_map(Step::Spend),
        5 => Just(Step::UndoLast),
        2 => Just(Step::Freeze),
        3 => (1..20_u8).prop_map(Step::WriteSome),
        2 => Just(Step::FinishWriting),
    ]
}

/// What a block did, for undoing it.
enum Done {
    Created(OutPoint),
    Spent(OutPoint, Coin),
}

struct World {
    table: CoinTable,
    store: BTreeMap<OutPoint, Coin>,
    /// What the frozen layer has yet to write.
    pending: Vec<(OutPoint, Option<Coin>)>,
    /// The truth.
    model: BTreeMap<OutPoint, Coin>,
    done: Vec<Done>,
    numbers: u32,
}

impl World {
    fn new() -> World {
        World {
            table: CoinTable { hasher: Hasher::seeded(5), ..CoinTable::new(1 << 20) },
            store: BTreeMap::new(),
            pending: Vec::new(),
            model: BTreeMap::new(),
            done: Vec::new(),
            numbers: 0,
        }
    }

    fn spend(&mut self, key: OutPoint) -> Option<Coin> {
        let World { table, store, .. } = self;
        table.spend(&key, || Ok::<_, Infallible>(store.get(&key).cloned())).expect("the map never fails")
    }

    fn create(&mut self, key: OutPoint) {
        self.numbers += 1;
        self.table.create(key, coin(self.numbers));
        self.model.insert(key, coin(self.numbers));
        self.done.push(Done::Created(key));
    }

    fn write(&mut self, entries: usize) {
        for (key, coin) in self.pending.drain(..entries.min(self.pending.len())) {
            match coin {
                Some(coin) => self.store.insert(key, coin),
                None => self.store.remove(&key),
            };
        }
    }

    fn finish(&mut self) {
        self.write(usize::MAX);
        self.table.written();
    }

    fn freeze(&mut self) {
        let frozen = self.table.freeze();
        self.pending = frozen.batches(300).flatten().collect();
        assert_eq!(frozen.len(), self.pending.len(), "batches give every entry once");
        assert!(self.pending.is_sorted_by_key(|(key, _)| *key), "batches come in key order: {:?}", self.pending);
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Create(key) if !self.model.contains_key(&outpoint(*key)) => self.create(outpoint(*key)),
            Step::Create(_) => {}
            Step::Overwrite(key) => {
                // What stands there is spent into the undo record, then the new coin comes.
                let key = outpoint(*key);
                let spent = self.spend(key);
                assert_eq!(spent.as_ref(), self.model.get(&key), "overwriting {key}");
                self.done.extend(spent.map(|old| Done::Spent(key, old)));
                self.create(key);
            }
            Step::Spend(key) => {
                let key = outpoint(*key);
                let (expected, given) = (self.model.remove(&key), self.spend(key));
                assert_eq!(given, expected, "spending {key}");
                self.done.extend(given.map(|coin| Done::Spent(key, coin)));
            }
            Step::UndoLast => match self.done.pop() {
                Some(Done::Created(key)) => {
                    self.table.remove(&key);
                    self.model.remove(&key);
                }
                Some(Done::Spent(key, coin)) => {
                    self.table.restore(key, coin.clone());
                    self.model.insert(key, coin);
                }
                None => {}
            },
            Step::Freeze if self.table.written => self.freeze(),
            Step::Freeze => {}
            Step::WriteSome(entries) => self.write(usize::from(*entries)),
            Step::FinishWriting => self.finish(),
        }
    }

    fn check(&self) {
        for key in (0..40).map(outpoint) {
            let seen = match self.table.get(&key) {
                Found::Coin(coin) => Some(coin),
                Found::Spent => None,
                Found::Unknown => self.store.get(&key),
            };
            assert_eq!(seen, self.model.get(&key), "the coin at {key} (left: table and store, right: model)");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn table_over_store_is_always_the_set_of_unspent_coins(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in &steps {
            world.run(step);
            world.check();
        }
        world.finish();
        world.freeze();
        world.finish();
        prop_assert_eq!(&world.store, &world.model, "after a flush the store is the set");
    }

    #[test]
    fn replaying_blocks_over_a_half_written_store_ends_in_the_same_set(
        before in prop::collection::vec(step(), 1..60),
        after in prop::collection::vec(step(), 1..60),
        more in prop::collection::vec(step(), 1..60),
        written in 0..40_usize,
    ) {
        // A store in step with `before`; then blocks whose flush is cut off after some entries.
        let quiet = |steps: Vec<Step>| steps.into_iter().filter(|step| matches!(step, Step::Create(_) | Step::Spend(_)));
        let mut world = World::new();
        quiet(before).for_each(|step| world.run(&step));
        world.freeze();
        world.finish();
        world.done.clear();
        let start = world.model.clone();
        quiet(after).for_each(|step| world.run(&step));
        world.freeze();
        world.write(written);
        let (done, numbers) = (std::mem::take(&mut world.done), world.numbers);

        // Forward again: coins may stand or be gone already.
        let again = |store: &BTreeMap<OutPoint, Coin>| World { store: store.clone(), numbers, ..World::new() };
        let mut forward = again(&world.store);
        let mut made = start.clone();
        let mut at = numbers - done.iter().filter(|done| matches!(done, Done::Created(_))).count() as u32;
        for done in &done {
            match done {
                Done::Created(key) => {
                    at += 1;
                    forward.table.restore(*key, coin(at));
                    made.insert(*key, coin(at));
                }
                Done::Spent(key, _) => {
                    forward.spend(*key);
                    made.remove(key);
                }
            }
        }
        prop_assert_eq!(&made, &world.model);
        forward.model = made;
        // The chain goes on before the next flush.
        quiet(more.clone()).for_each(|step| forward.run(&step));
        forward.freeze();
        forward.finish();
        prop_assert_eq!(&forward.store, &forward.model, "replayed forward");

        // And back, as after a cut in a reorganisation.
        let mut back = again(&world.store);
        for done in done.into_iter().rev() {
            match done {
                Done::Created(key) => back.table.remove(&key),
                Done::Spent(key, coin) => back.table.restore(key, coin),
            }
        }
        back.model = start;
        quiet(more).for_each(|step| back.run(&step));
        back.freeze();
        back.finish();
        prop_assert_eq!(&back.store, &back.model, "replayed back");
    }
}

#[test]
fn a_coin_made_and_spent_between_flushes_is_never_written() {
    let mut world = World::new();
    world.create(outpoint(1));
    world.spend(outpoint(1));
    assert!(world.table.changed() == 0);
    assert!(world.table.freeze().is_empty());
}

#[test]
fn the_store_is_not_asked_for_what_the_table_knows() {
    let mut world = World::new();
    world.create(outpoint(1));
    world.create(outpoint(2));
    world.freeze();
    let mut unasked = |key| world.table.spend(&key, || Err::<Option<Coin>, _>("asked"));
    assert_eq!(unasked(outpoint(1)), Ok(Some(coin(1))), "a frozen coin");
    assert_eq!(unasked(outpoint(1)), Ok(None), "a tombstone");
    assert_eq!(unasked(outpoint(3)), Err("asked"), "an unknown coin; and the store's failure comes through");
    assert_eq!(world.table.get(&outpoint(3)), Found::Unknown, "a failure changes nothing");
}

#[test]
fn freezing_forgets_the_layer_before_and_changes_the_generation() {
    let mut world = World::new();
    world.create(outpoint(1));
    world.freeze();
    world.finish();
    let generation = world.table.generation();
    assert_eq!(world.table.get(&outpoint(1)), Found::Coin(&coin(1)), "a written layer is a cache");
    world.freeze();
    assert_ne!(world.table.generation(), generation);
    assert_eq!(world.table.get(&outpoint(1)), Found::Unknown);
}

#[test]
#[should_panic(expected = "one layer is written at a time")]
fn a_layer_still_being_written_cannot_be_replaced() {
    let mut world = World::new();
    world.freeze();
    world.freeze();
}

#[test]
fn memory_counts_long_scripts_and_fills_the_budget() {
    let mut table = CoinTable::new(1 << 20);
    let empty = table.memory();
    let key = |vout| OutPoint { txid: Txid::all_zeros(), vout };
    table.create(key(0), Coin::from_parts(1, &[0; 10_000], 1, false));
    assert!(table.memory() >= empty + 10_000);
    assert_eq!(table.spend(&key(0), || Ok::<_, Infallible>(None)).map(|coin| coin.is_some()), Ok(true));
    assert!(table.memory() < empty + 10_000);
    assert!(!table.is_full());
    let coins = (0..10_000).find(|vout| {
        table.create(key(*vout), coin(20));
        table.is_full()
    });
    let coins = coins.expect("half a MiB is full after 10,000 coins");
    assert!(coins > 2_500, "half a MiB holds more than {coins} coins of about 110 bytes");
}
