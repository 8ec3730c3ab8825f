//! Blocks skip scripts that are known to hold: never others, and never under other flags.

use super::*;
use crate::params::Buried;
use crate::rules::deployment::script_flags;
use crate::script::Flags;

/// Height at which CHECKLOCKTIMEVERIFY begins to mean something.
const ACTIVATION: u32 = 8;

impl Node {
    fn flags_at(&self, height: u32) -> Flags {
        script_flags(height, BlockHash::all_zeros(), self.ledger.params())
    }

    fn knows(&self, tx: &Transaction, height: u32) -> bool {
        self.verdicts.contains(&self.verdicts.transaction_key(&tx.compute_wtxid(), self.flags_at(height)))
    }

    /// Mines a block that the ledger refuses for a script.
    fn refuses(&mut self, parent: BlockHash, tx: &Transaction) {
        let hash = self.hand_in(parent, std::slice::from_ref(tx));
        let refused = self.ledger.activate_fully().unwrap();
        assert!(
            matches!(refused[..], [(block, Rejection::BlockScript(_))] if block == hash),
            "a block with a wrong script: expected that it is refused, came {refused:?}"
        );
    }

    /// An output of a block locked by `script`.
    fn locked_by(&mut self, script: ScriptBuf) -> OutPoint {
        let mut fund = transaction(&self.coinbase(1)[..1], &[SUBSIDY / 4]);
        fund.output[0].script_pubkey = script;
        self.mine(self.tip(), std::slice::from_ref(&fund));
        OutPoint::new(fund.compute_txid(), 0)
    }
}

/// A chain below the activation, and a transaction that holds there alone: it is not locked, as the output demands.
fn before_activation() -> (Node, Transaction) {
    let regtest = RegtestOptions { activation_heights: vec![(Buried::Cltv, ACTIVATION)], ..Default::default() };
    let mut node = Node::with(Node::lax(), &regtest, Pool::new(0));
    for _ in 0..4 {
        node.mine(node.tip(), &[]);
    }
    // 100 CHECKLOCKTIMEVERIFY DROP 1, and some that does nothing.
    let coin = node.locked_by(ScriptBuf::from_bytes(vec![0x01, 100, 0xb1, 0x75, 0x51, 0x61, 0x61, 0x61]));
    let tx = transaction(&[coin], &[1]);
    (node, tx)
}

#[test]
fn a_script_that_held_before_an_activation_is_run_again_after_it() {
    let (mut node, tx) = before_activation();
    assert!(matches!(node.accept(&tx), Err(Rejection::MempoolScript(_))), "the pool wants what is coming");
    assert!(!node.knows(&tx, ACTIVATION - 1) && !node.knows(&tx, ACTIVATION), "only what holds is remembered");
    while node.height(node.tip()) < ACTIVATION - 1 {
        node.mine(node.tip(), &[]);
    }
    let key = |node: &Node, height| node.verdicts.transaction_key(&tx.compute_wtxid(), node.flags_at(height));
    node.verdicts.insert(&key(&node, ACTIVATION - 1));
    node.verdicts.insert(&node.verdicts.transaction_key(&tx.compute_wtxid(), Flags::STANDARD));
    node.refuses(node.tip(), &tx);
    // The verdict is what it hangs on: a wrong one, of the same flags, would let the block pass.
    node.verdicts.insert(&key(&node, ACTIVATION));
    node.mine(node.tip(), &[tx]);
}

#[test]
fn a_reorganisation_over_an_activation_runs_scripts_under_the_flags_of_each_block() {
    let (mut node, tx) = before_activation();
    while node.height(node.tip()) < ACTIVATION - 2 {
        node.mine(node.tip(), &[]);
    }
    let fork = node.tip();
    let valid = node.mine(fork, std::slice::from_ref(&tx));
    node.mine(valid, &[]);
    let tip = node.mine(node.tip(), &[]);
    // The same transaction one block later, on a branch that would be longer.
    let late = node.hand_in(fork, &[]);
    let wrong = node.hand_in(late, std::slice::from_ref(&tx));
    let longer = node.hand_in(wrong, &[]);
    node.hand_in(longer, &[]);
    let refused = node.ledger.activate_fully().unwrap();
    assert!(matches!(refused[..], [(block, Rejection::BlockScript(_))] if block == wrong), "{refused:?}");
    assert_eq!(node.tip(), tip);
    node.check();
}

#[test]
fn a_changed_witness_is_not_taken_for_the_one_that_held() {
    let mut node = Node::grown(Node::lax(), 4);
    // 7 EQUAL
    let script = ScriptBuf::from_bytes(vec![0x57, 0x87]);
    let coin = node.locked_by(script.to_p2wsh());
    let with = |witness: u8| {
        let mut tx = transaction(&[coin], &[1000]);
        tx.input[0].witness = Witness::from_slice(&[&[witness][..], script.as_bytes()]);
        tx
    };
    let (good, changed) = (with(7), with(8));
    assert_eq!(good.compute_txid(), changed.compute_txid());
    node.accept(&good).unwrap();
    let next = node.height(node.tip()) + 1;
    assert!(node.knows(&good, next) && !node.knows(&changed, next));
    node.refuses(node.tip(), &changed);
    assert_eq!(node.ids(), [good.compute_txid()].into());
    node.mine(node.tip(), &[good]);
    assert_eq!(node.ids(), BTreeSet::new());
    node.check();
}

#[test]
fn verdicts_of_the_pool_change_nothing_about_which_script_is_named() {
    let mut node = Node::grown(Node::lax(), 4);
    let coins = node.coinbase(1);
    let known = transaction(&coins[..1], &[SUBSIDY / 4 - 1000]);
    node.accept(&known).unwrap();
    let wrong = |vout: usize, script: u8| {
        let mut tx = transaction(&coins[vout..=vout], &[1]);
        tx.input[0].script_sig = ScriptBuf::from_bytes(vec![script]);
        tx
    };
    // OP_RETURN, then OP_RESERVED: the first is named.
    let hash = node.hand_in(node.tip(), &[known, wrong(1, 0x6a), wrong(2, 0x50)]);
    let refused = node.ledger.activate_fully().unwrap();
    assert_eq!(refused, [(hash, Rejection::BlockScript(crate::script::ScriptError::OpReturn))]);
    assert_eq!(node.pool.read().len(), 1, "what is not mined stays");
    node.check();
}
