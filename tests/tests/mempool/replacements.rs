//! The same random replacements and packages to groatd and to bitcoind, with fees around each threshold: the same
//! verdicts in the same words, and the same pool. Clusters stay so small that Core, too, finds their best order: with a
//! larger one it may give up before, and then decide otherwise.

use super::*;

/// What both may spend, whatever becomes of their pools.
struct World {
    pair: Pair,
    /// Each output there ever was.
    all: BTreeMap<OutPoint, Coin>,
    /// Outputs of the chain that no block spends.
    mined: BTreeMap<OutPoint, Coin>,
    /// What the pools hold.
    held: BTreeMap<Txid, Transaction>,
    tally: BTreeMap<String, u32>,
}

/// Transactions in the pool after which a block is mined.
const FULL: usize = 40;

impl World {
    fn new(seed: u64) -> Option<World> {
        let policy = Policy { min_relay_fee: 1000, incremental_relay_fee: 500, ..Policy::default() };
        let pair = Pair::start(seed, &["-minrelaytxfee=0.00001", "-incrementalrelayfee=0.000005"], policy)?;
        let mined = pair.coins.clone();
        Some(World { all: mined.clone(), mined, pair, held: BTreeMap::new(), tally: BTreeMap::new() })
    }

    fn draw(&mut self, below: usize) -> usize {
        self.pair.random.random_range(0..below)
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.pair.random.random_range(0..100) < percent
    }

    /// Outputs that neither chain nor pool spends, of both.
    fn free(&self) -> Vec<Coin> {
        let spent: BTreeSet<OutPoint> =
            self.held.values().flat_map(|tx| tx.input.iter().map(|input| input.previous_output)).collect();
        let made = self.held.iter().flat_map(|(txid, tx)| {
            (0..tx.output.len() as u32).filter_map(|vout| self.all.get(&OutPoint::new(*txid, vout)))
        });
        made.chain(self.mined.values()).filter(|coin| !spent.contains(&coin.outpoint)).copied().collect()
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        if from.is_empty() { None } else { Some(from[self.draw(from.len())].clone()) }
    }

    /// A signed transaction that pays as near to `fee` as it can, and what it makes. None if it costs more than there is.
    fn build(&mut self, spent: &[Coin], fee: impl Fn(u64) -> i64, version: i32) -> Option<Transaction> {
        let total: u64 = spent.iter().map(|coin| coin.value).sum();
        let outputs = if self.chance(10) { 25 } else { 1 + self.draw(3) as u64 };
        let scripts: Vec<u32> = (0..outputs)
            .map(|_| {
                let kind = KINDS[self.draw(KINDS.len())];
                let number = self.draw(self.pair.keys.len() as usize) as u32;
                kind.with_key(number)
            })
            .collect();
        let mut tx =
            Transaction { version: transaction::Version(version), ..regtest::transaction(Vec::new(), Vec::new()) };
        tx.input = spent.iter().map(|coin| unsigned(coin.outpoint)).collect();
        let mut paid = 0;
        for _ in 0..2 {
            let left = total.checked_sub(paid)?;
            let each = left / outputs;
            let value = |number: u64| if number == 0 { left - each * (outputs - 1) } else { each };
            let output =
                |(number, script): (u64, &u32)| regtest::output(value(number), self.pair.keys.script(*script).clone());
            if each < 3000 {
                return None;
            }
            tx.output = (0..).zip(&scripts).map(output).collect();
            self.pair.keys.sign(&mut tx, spent);
            paid = u64::try_from(fee(tx.vsize() as u64).max(0)).ok()?;
        }
        let txid = tx.compute_txid();
        for (vout, script) in scripts.iter().enumerate() {
            let outpoint = OutPoint::new(txid, vout as u32);
            self.all.insert(outpoint, Coin { outpoint, value: tx.output[vout].value.to_sat(), script: *script });
        }
        Some(tx)
    }

    /// The pool of groatd as it is now, which is that of bitcoind.
    fn look(&mut self, new: &[Transaction]) {
        let ids = pool(self.pair.groat());
        self.held.extend(new.iter().map(|tx| (tx.compute_txid(), tx.clone())));
        self.held.retain(|txid, _| ids.contains(&txid.to_string()));
    }

    fn mine_if_full(&mut self, case: u32) {
        if case % 10 == 9 {
            self.pair.compare();
        }
        if self.held.len() < FULL {
            return;
        }
        let script = Kind::P2wpkh.with_key(case % self.pair.keys.len());
        if self.chance(50) {
            self.pair.core_mines(script)
        } else {
            self.pair.groat_mines(script)
        };
        let spent: BTreeSet<OutPoint> =
            self.held.values().flat_map(|tx| tx.input.iter().map(|input| input.previous_output)).collect();
        for (txid, tx) in std::mem::take(&mut self.held) {
            let outpoints = (0..tx.output.len() as u32).map(|vout| OutPoint::new(txid, vout));
            self.mined.extend(outpoints.filter_map(|outpoint| Some((outpoint, *self.all.get(&outpoint)?))));
        }
        self.mined.retain(|outpoint, _| !spent.contains(outpoint));
        self.pair.compare();
        self.look(&[]);
    }

    /// What all that leaves with these transactions paid.
    fn paid_below(&self, txids: &BTreeSet<Txid>) -> i64 {
        let mut gone = txids.clone();
        loop {
            let below = |tx: &Transaction| tx.input.iter().any(|input| gone.contains(&input.previous_output.txid));
            let more: Vec<Txid> = (self.held.iter())
                .filter(|(txid, tx)| !gone.contains(*txid) && below(tx))
                .map(|(txid, _)| *txid)
                .collect();
            if more.is_empty() {
                break;
            }
            gone.extend(more);
        }
        gone.iter().filter_map(|txid| self.held.get(txid)).map(|tx| self.fee(tx)).sum()
    }

    fn fee(&self, tx: &Transaction) -> i64 {
        let spent: u64 = tx.input.iter().map(|input| self.all[&input.previous_output].value).sum();
        let made: u64 = tx.output.iter().map(|output| output.value.to_sat()).sum();
        spent as i64 - made as i64
    }

    /// Coins to spend: free ones, and with `victims` those of so many transactions of the pool.
    fn coins(&mut self, victims: usize) -> (Vec<Coin>, BTreeSet<Txid>) {
        let mut spent: BTreeMap<OutPoint, Coin> = BTreeMap::new();
        let mut replaced = BTreeSet::new();
        let held: Vec<Transaction> = self.held.values().cloned().collect();
        for _ in 0..victims {
            let Some(victim) = self.pick(&held) else { break };
            let input = self.draw(victim.input.len());
            let outpoint = victim.input[input].previous_output;
            spent.insert(outpoint, self.all[&outpoint]);
            replaced.insert(victim.compute_txid());
            if self.chance(3) {
                // It spends what it replaces.
                let made = OutPoint::new(victim.compute_txid(), 0);
                spent.extend(self.all.get(&made).map(|coin| (made, *coin)));
            }
        }
        if victims == 0 || self.chance(40) {
            let free = self.free();
            for _ in 0..=self.draw(2) {
                spent.extend(self.pick(&free).map(|coin| (coin.outpoint, coin)));
            }
        }
        (spent.into_values().collect(), replaced)
    }

    fn version(&mut self) -> i32 {
        if self.chance(15) { 3 } else { 2 }
    }

    /// One transaction, which replaces others or not.
    fn offer_one(&mut self, case: u32) {
        let victims = if self.chance(35) { 0 } else { 1 + self.draw(3) };
        let (spent, replaced) = self.coins(victims);
        let paid = self.paid_below(&replaced);
        let (kind, off, rate) = (self.draw(4), self.draw(3) as i64 - 1, self.draw(20_000) as i64);
        let fee = |vsize: u64| {
            let relay = (vsize as i64 * 500 + 999) / 1000;
            match (victims, kind) {
                (0, _) => vsize as i64 * (900 + rate) / 1000,
                (_, 0) => paid + off,
                (_, 1) => paid + relay + off,
                _ => paid + relay + vsize as i64 * rate / 1000,
            }
        };
        let version = self.version();
        let Some(tx) = self.build(&spent, fee, version) else { return };
        let taken = self.pair.offer(&tx, &format!("case {case}, in place of {replaced:?}"));
        let said = self.pair.groat().call("testmempoolaccept", json!([[serialize_hex(&tx)], 0])).unwrap();
        let reason = said[0]["reject-reason"].as_str().unwrap_or("");
        *self.tally.entry(if taken { "taken".into() } else { reason.to_string() }).or_default() += 1;
        self.look(&[tx]);
    }

    /// A child after some parents, in order or not.
    fn offer_package(&mut self, case: u32) {
        let count = if self.chance(60) { 1 } else { 2 + self.draw(2) };
        let version = self.version();
        let mut package: Vec<Transaction> = Vec::new();
        let mut given: Vec<Coin> = Vec::new();
        for _ in 0..count {
            let victims = usize::from(self.chance(35));
            let (spent, _) = self.coins(victims);
            let rate = [0, 200, 990, 1000, 2000, 9000][self.draw(6)];
            let Some(tx) = self.build(&spent, |vsize| (vsize as i64 * rate + 999) / 1000, version) else { return };
            let outpoint = OutPoint::new(tx.compute_txid(), self.draw(tx.output.len()) as u32);
            given.push(self.all[&outpoint]);
            package.push(tx);
        }
        if self.chance(15) {
            let (more, _) = {
                let victims = usize::from(self.chance(50));
                self.coins(victims)
            };
            given.extend(more);
        }
        let rate = [0, 500, 1000, 3000, 30_000][self.draw(5)] + self.draw(100) as i64;
        let other = if self.chance(5) { 5 - version } else { version };
        let Some(child) = self.build(&given, |vsize| vsize as i64 * rate / 1000, other) else { return };
        package.push(child);
        match self.draw(40) {
            0 => package.reverse(),
            1 => package.insert(0, package[0].clone()),
            2 => drop(package.remove(0)),
            3 => package[0].input[0].witness.push([1; 3]),
            4 => {
                let last = package.len() - 1;
                package[last].input[0].witness.clear();
            }
            5 => {
                let first = serialize_hex(&package[0]);
                let params = json!([first, 0]);
                let said = [
                    self.pair.groat().call("sendrawtransaction", params.clone()),
                    self.pair.core.rpc().call("sendrawtransaction", params),
                ];
                assert_eq!(said[0], said[1], "case {case}; {}", repeat());
            }
            _ => {}
        }
        let hexes: Vec<String> = package.iter().map(serialize_hex).collect();
        let limit = if self.chance(10) { json!(0.00015) } else { json!(0) };
        for method in ["testmempoolaccept", "submitpackage"] {
            let params = json!([hexes, limit]);
            let ours = self.pair.groat().call(method, params.clone());
            let theirs = self.pair.core.rpc().call(method, params);
            assert_eq!(ours, theirs, "{method}, case {case}: groatd (left), bitcoind (right)\n{hexes:?}\n{}", repeat());
            let said = match &ours {
                Ok(said) => {
                    said["package_msg"].as_str().or(said[0]["package-error"].as_str()).unwrap_or("").to_string()
                }
                Err(error) => format!("{error:?}"),
            };
            let said = said.split(", ").next().unwrap_or_default().to_string();
            *self.tally.entry(format!("{method}: {said}")).or_default() += 1;
        }
        self.look(&package);
    }

    fn finish(self, expected: &[&str]) {
        let World { pair, tally, .. } = self;
        let (few, all) = (&pair.differences[..pair.differences.len().min(5)], pair.differences.len());
        assert!(all == 0, "{all} verdicts differ, the first of them: {}\n{tally:?}\n{}", few.join("\n"), repeat());
        for what in expected {
            assert!(tally.contains_key(*what), "no case of {what:?}: {tally:?}");
        }
        println!("{tally:?}");
    }
}

#[test]
fn random_replacements_get_the_same_verdict_from_bitcoind() {
    let Some(mut world) = World::new(11) else { return };
    for case in 0..if wide() { 10_000 } else { 400 } {
        world.offer_one(case);
        world.mine_if_full(case);
    }
    world.finish(&[
        "taken",
        "insufficient fee",
        "replacement-failed",
        "bad-txns-spends-conflicting-tx",
        "TRUC-violation",
    ]);
}

#[test]
fn random_packages_get_the_same_verdict_from_bitcoind() {
    let Some(mut world) = World::new(12) else { return };
    for case in 0..if wide() { 10_000 } else { 300 } {
        if world.chance(30) {
            world.offer_one(case);
        } else {
            world.offer_package(case);
        }
        world.mine_if_full(case);
    }
    world.finish(&[
        "submitpackage: success",
        "submitpackage: transaction failed",
        "submitpackage: package RBF failed: insufficient anti-DoS fees",
        "testmempoolaccept: package-not-sorted",
        "testmempoolaccept: package-contains-duplicates",
    ]);
}

#[test]
fn what_is_asked_of_the_pool_has_the_same_answer_from_bitcoind() {
    let Some(mut world) = World::new(13) else { return };
    for case in 0..60 {
        world.offer_one(case);
        world.mine_if_full(case);
    }
    let same = |method: &str, params: Value| {
        let ours = world.pair.groat().call(method, params.clone());
        let theirs = world.pair.core.rpc().call(method, params.clone());
        assert_eq!(ours, theirs, "{method} {params}: groatd (left), bitcoind (right); {}", repeat());
        ours
    };
    let held: Vec<String> = world.held.keys().map(Txid::to_string).collect();
    for (number, txid) in held.iter().enumerate().take(6) {
        same("prioritisetransaction", json!([txid, 0, 1000 * number as i64 - 2000])).unwrap();
    }
    same("prioritisetransaction", json!(["ab".repeat(32), null, 5])).unwrap();
    same("prioritisetransaction", json!([held[0], 1, 5])).unwrap_err();
    let set = same("getprioritisedtransactions", json!([])).unwrap();
    assert_eq!(set.as_object().unwrap().len(), 6, "one was given nothing");
    let outputs: Vec<Value> = (world.all.keys().take(100))
        .map(|outpoint| json!({"txid": outpoint.txid.to_string(), "vout": outpoint.vout}))
        .collect();
    same("gettxspendingprevout", json!([outputs])).unwrap();
    same("gettxspendingprevout", json!([outputs, {"return_spending_tx": true}])).unwrap();
    for wrong in [
        json!([[]]),
        json!([[{"txid": held[0]}]]),
        json!([[{"txid": held[0], "vout": -1}]]),
        json!([[{"txid": held[0], "vout": "1"}]]),
        json!([[{"txid": held[0], "vout": 0, "n": 1}]]),
        json!([outputs, {"mempool_only": false}]),
        json!([outputs, {"mempool": false}]),
    ] {
        same("gettxspendingprevout", wrong).unwrap_err();
    }
    // Of chunks that pay alike both may name others, so only what holds for every order is compared.
    let sums = |rpc: &Rpc, txid: &String| {
        let cluster = rpc.call("getmempoolcluster", json!([txid])).unwrap();
        (cluster["clusterweight"].clone(), cluster["txcount"].clone(), cluster["chunks"][0]["chunkfee"].is_number())
    };
    for txid in &held {
        assert_eq!(sums(world.pair.groat(), txid), sums(world.pair.core.rpc(), txid), "{txid}; {}", repeat());
    }
    same("getmempoolcluster", json!(["ab".repeat(32)])).unwrap_err();
    let ends = |rpc: &Rpc| {
        let diagram = rpc.call("getmempoolfeeratediagram", json!([])).unwrap();
        let corners = diagram.as_array().unwrap();
        (corners[0].clone(), corners[corners.len() - 1].clone())
    };
    assert_eq!(ends(world.pair.groat()), ends(world.pair.core.rpc()));
}
