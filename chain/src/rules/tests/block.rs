//! The rules of a body.

use super::*;
use crate::params::Buried;
use crate::rules::block::*;
use crate::rules::commitment::witness_commitment;
use crate::rules::limits::MAX_BLOCK_WEIGHT;

const SUBSIDY: u64 = 5_000_000_000;

/// A commitment that nothing was committed to with.
fn false_commitment() -> TxOut {
    let script = [[0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed].as_slice(), &[1; 32]].concat();
    TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(script) }
}

fn witnessed(mut tx: Transaction) -> Transaction {
    tx.input[0].witness = Witness::from_slice(&[[1u8]]);
    tx
}

fn contextual(transactions: Vec<Transaction>) -> Result<(), Rejection> {
    let headers = branch(&regtest(), 20);
    contextual_check_block(&block(&headers, transactions), &headers, &regtest())
}

#[test]
fn a_body_is_judged_after_its_proof_of_work() {
    let mut bad = block(&branch(&regtest(), 0), vec![]);
    while bad.header.block_hash().to_byte_array()[31] < 0x80 {
        bad.header.nonce += 1;
    }
    bad.hash = bad.header.block_hash();
    assert_eq!(check_block(&bad, &regtest()), Err(Rejection::HighHash));
    assert_eq!(check_body(&bad), Err(Rejection::BadBlkLength), "a proposal has no proof of work");
}

#[test]
fn a_block_of_a_signet_commits_to_a_solution() {
    let params = Params { signet_challenge: Some(ScriptBuf::from_bytes(vec![0x51])), ..regtest() };
    let headers = branch(&params, 0);
    let mut txs = vec![coinbase(1, 1)];
    assert_eq!(check_block(&block(&headers, txs.clone()), &params), Err(Rejection::BadSignetBlksig), "nowhere");
    commit(&headers, &mut txs);
    assert_eq!(check_block(&block(&headers, txs.clone()), &params), Ok(()), "the challenge asks for nothing");
    let params = Params { signet_challenge: Some(ScriptBuf::from_bytes(vec![0x00])), ..params };
    assert_eq!(check_block(&block(&headers, txs), &params), Err(Rejection::BadSignetBlksig), "nothing solves it");
}

#[test]
fn the_transactions_hash_to_the_merkle_root() {
    let headers = branch(&regtest(), 0);
    let txdata = vec![coinbase(1, 1), pay(&[outpoint(0)], &[1])];
    let good = bitcoin::Block { header: child(&headers.0[0]), txdata };
    let bad = mined(good.clone(), false);
    assert_eq!(check_block(&bad, &regtest()), Err(Rejection::BadTxnMrklRoot));
    let good = mined(good, true);
    assert_eq!(check_block(&good, &regtest()), Ok(()));
}

#[test]
fn repeated_transactions_are_a_mutation_and_not_the_miners_fault() {
    let headers = branch(&regtest(), 0);
    let txs = [coinbase(1, 1), pay(&[outpoint(0)], &[1]), pay(&[outpoint(1)], &[1])];
    let honest = block(&headers, txs.to_vec());
    let repeated = [txs.as_slice(), &[txs[2].clone()]].concat();
    let mutated = mined(bitcoin::Block { header: honest.header, txdata: repeated }, false);
    assert_eq!(mutated.hash, honest.hash, "the attack");
    let verdict = check_block(&mutated, &regtest()).expect_err("a mutated block");
    assert_eq!(verdict, Rejection::BadTxnsDuplicate);
    assert_eq!(verdict.blame(), crate::rejection::Blame::Mutated);
}

#[test]
fn a_block_has_transactions_and_fits() {
    assert_eq!(refused(vec![]), Some(Rejection::BadBlkLength), "none");
    let mut filler = pay(&[outpoint(0)], &[1]);
    let at = |filler: &Transaction| block(&branch(&regtest(), 0), vec![coinbase(1, 1), filler.clone()]);
    filler.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x51; 900_000]);
    let room = 1_000_000 - at(&filler).stripped_size;
    filler.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x51; 900_000 + room]);
    let full = at(&filler);
    assert_eq!((full.stripped_size, check_block(&full, &regtest())), (1_000_000, Ok(())));
    filler.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x51; 900_001 + room]);
    assert_eq!(check_block(&at(&filler), &regtest()), Err(Rejection::BadBlkLength));
}

#[test]
fn the_first_transaction_and_no_other_is_a_coinbase() {
    let tx = pay(&[outpoint(0)], &[1]);
    assert_eq!(refused(vec![tx.clone(), coinbase(1, 1)]), Some(Rejection::BadCbMissing));
    assert_eq!(refused(vec![coinbase(1, 1), tx.clone(), coinbase(2, 1)]), Some(Rejection::BadCbMultiple));
    assert_eq!(refused(vec![coinbase(1, 1), tx]), None);
}

#[test]
fn every_transaction_is_checked() {
    let empty = pay(&[outpoint(0)], &[]);
    assert_eq!(refused(vec![coinbase(1, 1), empty]), Some(Rejection::BadTxnsVoutEmpty));
    let twice = pay(&[outpoint(0), outpoint(0)], &[1]);
    assert_eq!(refused(vec![coinbase(1, 1), twice]), Some(Rejection::BadTxnsInputsDuplicate));
}

#[test]
fn a_transaction_of_nothing_decodes_and_is_refused() {
    let good = block(&branch(&regtest(), 0), vec![coinbase(1, 1), pay(&[outpoint(0)], &[1])]);
    let raw = bitcoin::Block { header: good.header, txdata: vec![good.transactions[0].clone()] };
    let mut bytes = bitcoin::consensus::serialize(&raw);
    bytes[80] = 2;
    bytes.extend_from_slice(&[2, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let mut block = Block::decode(&bytes).expect("Core decodes it too");
    assert_eq!((block.stripped_size, block.size), (bytes.len(), bytes.len()));
    let hash = bitcoin::hashes::sha256d::Hash::hash(&bytes[bytes.len() - 10..]);
    assert_eq!(block.txids[1].to_byte_array(), hash.to_byte_array());
    let leaves = block.txids.iter().map(|txid| txid.to_byte_array());
    block.header.merkle_root = TxMerkleNode::from_byte_array(crate::rules::merkle::merkle_root(leaves).0);
    assert_eq!(check_body(&block), Err(Rejection::BadTxnsVinEmpty));
}

#[test]
fn a_block_shows_at_most_20000_signature_operations() {
    let checks = |count| {
        let mut tx = pay(&[outpoint(0)], &[1]);
        tx.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0xac; count]);
        refused(vec![coinbase(1, 1), tx])
    };
    assert_eq!(checks(20_000), None);
    assert_eq!(checks(20_001), Some(Rejection::BadBlkSigops));
}

#[test]
fn a_block_holds_no_transaction_whose_time_has_not_come() {
    let headers = branch(&regtest(), 20);
    let with_lock_time = |lock_time: u32, params: &Params| {
        let mut tx = pay(&[outpoint(0)], &[1]);
        tx.lock_time = absolute::LockTime::from_consensus(lock_time);
        tx.input[0].sequence = Sequence::ZERO;
        contextual_check_block(&block(&headers, vec![coinbase(21, 1), tx]), &headers, params)
    };
    assert_eq!(with_lock_time(20, &regtest()), Ok(()));
    assert_eq!(with_lock_time(21, &regtest()), Err(Rejection::BadTxnsNonfinal));
    let median = crate::rules::branch::median_time_past(&headers);
    assert_eq!(with_lock_time(median - 1, &regtest()), Ok(()));
    assert_eq!(with_lock_time(median, &regtest()), Err(Rejection::BadTxnsNonfinal), "BIP113: the median time counts");
    let mut before = regtest();
    before.set_activation_height(Buried::Csv, 22);
    assert_eq!(with_lock_time(median, &before), Ok(()), "before BIP113 the block's own time counts");
    assert_eq!(with_lock_time(headers.0[20].time + 600, &before), Err(Rejection::BadTxnsNonfinal));
}

#[test]
fn a_coinbase_commits_to_its_height() {
    for (script, expected) in [
        (vec![0x01, 21, 0], Ok(())),
        (vec![0x01, 21], Ok(())),
        (vec![0x01, 22], Err(Rejection::BadCbHeight)),
        (vec![0x02, 21, 0], Err(Rejection::BadCbHeight)),
        (vec![0x4c, 1, 21], Err(Rejection::BadCbHeight)),
        (vec![0x01], Err(Rejection::BadCbHeight)),
    ] {
        let mut tx = coinbase(21, 1);
        tx.input[0].script_sig = ScriptBuf::from_bytes(script.clone());
        assert_eq!(contextual(vec![tx]), expected, "{script:02x?}");
    }
    let headers = branch(&regtest(), 15);
    let block = block(&headers, vec![coinbase(16, 1)]);
    assert_eq!(block.transactions[0].input[0].script_sig.as_bytes()[0], 0x60, "small heights are opcodes");
    assert_eq!(contextual_check_block(&block, &headers, &regtest()), Ok(()));
    let mut params = regtest();
    params.set_activation_height(Buried::Bip34, 17);
    let wrong = super::block(&headers, vec![coinbase(99, 1)]);
    assert_eq!(contextual_check_block(&wrong, &headers, &params), Ok(()), "before BIP34");
}

#[test]
fn a_witness_needs_a_commitment() {
    let txs = vec![coinbase(21, SUBSIDY), witnessed(pay(&[outpoint(0)], &[1]))];
    assert_eq!(contextual(txs.clone()), Err(Rejection::UnexpectedWitness));
    let mut committed = txs.clone();
    commit(&branch(&regtest(), 20), &mut committed);
    assert_eq!(contextual(committed.clone()), Ok(()));

    let mut params = regtest();
    params.set_activation_height(Buried::Segwit, 22);
    let headers = branch(&params, 20);
    let early = block(&headers, committed);
    assert_eq!(contextual_check_block(&early, &headers, &params), Err(Rejection::UnexpectedWitness), "before segwit");
    let mut coinbase_only = vec![witnessed(coinbase(21, SUBSIDY))];
    assert_eq!(contextual(coinbase_only.clone()), Err(Rejection::UnexpectedWitness), "in the coinbase too");
    coinbase_only[0].input[0].witness = Witness::new();
    assert_eq!(contextual(coinbase_only), Ok(()), "without witnesses there need not be one");
}

#[test]
fn a_commitment_needs_one_reserved_value_of_32_bytes() {
    for witness in [vec![], vec![vec![0; 31]], vec![vec![0; 33]], vec![vec![0; 32], vec![]]] {
        let mut tx = coinbase(21, 1);
        tx.output.push(false_commitment());
        tx.input[0].witness = Witness::from_slice(&witness);
        assert_eq!(contextual(vec![tx]), Err(Rejection::BadWitnessNonceSize), "{witness:?}");
    }
}

#[test]
fn a_commitment_binds_every_witness() {
    let mut txs = vec![coinbase(21, 1), witnessed(pay(&[outpoint(0)], &[1]))];
    commit(&branch(&regtest(), 20), &mut txs);
    let mut other = txs.clone();
    other[1].input[0].witness = Witness::from_slice(&[[2u8]]);
    assert_eq!(contextual(other), Err(Rejection::BadWitnessMerkleMatch));
    let mut nonce = txs.clone();
    nonce[0].input[0].witness = Witness::from_slice(&[[1u8; 32]]);
    assert_eq!(contextual(nonce), Err(Rejection::BadWitnessMerkleMatch));
    let mut hidden = txs.clone();
    hidden[0].output.push(false_commitment());
    assert_eq!(contextual(hidden), Err(Rejection::BadWitnessMerkleMatch), "the last commitment counts");
    let mut first = txs.clone();
    first[0].output.insert(0, false_commitment());
    assert_eq!(witness_commitment(&first[0]).map(|(position, _)| position), Some(2));
    let mut short = txs;
    short[0].output.push(TxOut {
        script_pubkey: ScriptBuf::from_bytes(false_commitment().script_pubkey.as_bytes()[..37].to_vec()),
        ..false_commitment()
    });
    assert_eq!(contextual(short), Ok(()), "37 bytes are no commitment");
}

#[test]
fn a_block_weighs_at_most_four_million() {
    let weighing = |length: usize| {
        let mut tx = pay(&[outpoint(0)], &[1]);
        tx.input[0].witness = Witness::from_slice(&[vec![0; length]]);
        let mut txs = vec![coinbase(21, 1), tx];
        let headers = branch(&regtest(), 20);
        commit(&headers, &mut txs);
        let block = block(&headers, txs);
        (block.weight(), contextual_check_block(&block, &headers, &regtest()))
    };
    let (weight, _) = weighing(3_900_000);
    let room = MAX_BLOCK_WEIGHT - weight;
    assert_eq!(weighing(3_900_000 + room), (MAX_BLOCK_WEIGHT, Ok(())));
    assert_eq!(weighing(3_900_001 + room), (MAX_BLOCK_WEIGHT + 1, Err(Rejection::BadBlkWeight)));
}

#[test]
fn a_transaction_of_64_bytes_is_valid() {
    let mut short = pay(&[outpoint(0)], &[1]);
    short.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x51; 4]);
    assert_eq!(short.base_size(), 64);
    let headers = branch(&regtest(), 0);
    let with = block(&headers, vec![coinbase(1, 1), short]);
    assert_eq!(check_block(&with, &regtest()), Ok(()));
}

#[test]
fn an_output_that_nothing_can_spend_is_no_coin() {
    for (script, expected) in [
        (vec![], false),
        (vec![0x6a], true),
        (vec![0x51, 0x6a], false),
        (vec![0x51; 10_000], false),
        (vec![0x51; 10_001], true),
    ] {
        assert_eq!(is_unspendable(&ScriptBuf::from_bytes(script.clone())), expected, "{} bytes", script.len());
    }
}
