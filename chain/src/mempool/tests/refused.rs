//! Reasons that no other test of the pool gives: each for the least that breaks its rule, and none for the most that
//! keeps it.

use super::*;
use crate::script::ScriptError;

#[test]
fn a_transaction_of_64_bytes_is_not_relayed() {
    let node = Node::grown(Node::lax(), 3);
    let coins = node.coinbase(1);
    let of = |coin: usize, length: usize| {
        let mut tx = transaction(&coins[coin..=coin], &[1000]);
        tx.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x51; length]);
        tx
    };
    assert_eq!((of(0, 4).base_size(), node.accept(&of(0, 4))), (64, Err(Rejection::TxSizeSmall)));
    assert_eq!((of(1, 5).base_size(), node.accept(&of(1, 5)).is_ok()), (65, true));
}

#[test]
fn signature_operations_cost_at_most_16000_where_they_are_relayed() {
    let node = Node::grown(Node::lax(), 3);
    let coins = node.coinbase(1);
    let of = |coin: usize, checks: usize| {
        let mut tx = transaction(&coins[coin..=coin], &[1000]);
        tx.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0xac; checks]);
        tx
    };
    let detail = "16004".to_string();
    assert_eq!(
        node.try_accept(&of(0, 4001)).unwrap_err(),
        Refusal { rejection: Rejection::BadTxnsTooManySigops, detail }
    );
    assert!(node.accept(&of(1, 4000)).is_ok());
}

#[test]
fn one_of_a_list_that_is_only_tested_replaces_nothing() {
    let node = Node::grown(Node::lax(), 3);
    let coins = node.coinbase(1);
    node.accept(&transaction(&coins[..1], &[SUBSIDY / 4 - 1000])).unwrap();
    let stage = |coin: usize, limits| {
        let tx = Arc::new(transaction(&coins[coin..=coin], &[SUBSIDY / 4 - 9000]));
        stage(tx, NOW, limits, &node.pool.read(), &node.ledger).unwrap().map(drop).map_err(|refusal| refusal.rejection)
    };
    assert_eq!(stage(0, Limits::Listed), Err(Rejection::Bip125ReplacementDisallowed));
    assert_eq!([stage(0, Limits::Held), stage(1, Limits::Listed)], [Ok(()), Ok(())]);
}

#[test]
fn who_hands_a_package_in_pays_no_more_than_he_named() {
    let node = Node::grown(Node::lax(), 3);
    let coins = node.coinbase(1);
    let judge = |coin: usize, above: i64| {
        let tx = Arc::new(transaction(&coins[coin..=coin], &[SUBSIDY / 4 - 1000]));
        let max_rate = Some(FeeRate { fee: 1000 - above, size: tx.vsize() as u64 });
        let (pool, ledger, now) = (&*node.pool, &node.ledger, NOW);
        let mut judging = Judging::new(vec![tx]);
        loop {
            match (Packages { pool, ledger, now, max_rate }.accept(&mut judging).unwrap()) {
                Step::Scripts(staged) => judging.run_scripts(&staged, &node.verdicts),
                Step::Done(judged) => return judged.outcomes,
            }
        }
    };
    let refused = judge(0, 1);
    let reason = |outcome: &Outcome| matches!(outcome, Outcome::Refused(refusal) if refusal.rejection == Rejection::MaxFeerateExceeded);
    assert!(refused.iter().all(reason), "{refused:?}");
    assert!(matches!(judge(1, 0)[..], [Outcome::Accepted(_)]), "as much as he named");
}

#[test]
fn a_witness_that_was_taken_away_is_told_from_a_wrong_one() {
    let mut node = Node::grown(Node::lax(), 3);
    let mut parent = transaction(&node.coinbase(1)[..1], &[SUBSIDY / 4 - 1000]);
    parent.output[0].script_pubkey = anyone().to_p2wsh();
    node.mine(node.tip(), std::slice::from_ref(&parent));
    let with = |witness: &[Vec<u8>]| {
        let mut tx = transaction(&[OutPoint::new(parent.compute_txid(), 0)], &[1000]);
        tx.input[0].witness = Witness::from_slice(witness);
        tx
    };
    let failed = ScriptError::WitnessProgramWitnessEmpty;
    assert_eq!(node.accept(&with(&[])), Err(Rejection::MempoolScriptStripped(failed)));
    let failed = ScriptError::WitnessProgramMismatch;
    assert_eq!(node.accept(&with(&[vec![0x52]])), Err(Rejection::MempoolScript(failed)));
    assert!(node.accept(&with(&[anyone().into_bytes()])).is_ok());
}

#[test]
fn what_is_spent_has_a_known_form_where_that_is_asked_for() {
    let mut judged = Vec::new();
    for policy in [Policy::default(), Node::lax()] {
        let node = Node::grown(policy, 3);
        let mut tx = transaction(&node.coinbase(1)[..1], &[SUBSIDY / 4 - 1000]);
        tx.output[0].script_pubkey = anyone().to_p2wsh();
        judged.push(node.accept(&tx).map(drop));
    }
    assert_eq!(judged, [Err(Rejection::BadTxnsNonstandardInputs), Ok(())]);
}
