//! Blocks of a signet with a challenge of its own: which solutions bitcoind and Groat take, and where in the coinbase
//! they look for one. All stand on the first block, so that each is judged whatever became of the others.

use bitcoin::consensus::encode::serialize;
use bitcoin::hashes::Hash;
use bitcoin::opcodes::all::{OP_CHECKSIG, OP_RETURN};
use bitcoin::script::{Builder, PushBytesBuf, ScriptBuf};
use bitcoin::secp256k1::{Keypair, Message, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::{Block, CompactTarget, Network, OutPoint, Target, Transaction, TxMerkleNode, TxOut, transaction};
use groat_chain::params::Params;
use groat_tests::bitcoind::{Bitcoind, peers};
use groat_tests::mutants::Judge;
use groat_tests::regtest;

use super::judge::Groat;

/// What a solution begins with (BIP325).
const HEADER: [u8; 4] = [0xec, 0xc7, 0xda, 0xa2];
const REFUSED: &str = "bad-signet-blksig";
/// The nonces of the cases in their order: a signet block takes some million hashes. One that no longer fits is searched
/// for anew, and the test tells them all.
const NONCES: [u32; 18] = [
    259_143, 113_326, 1_496_417, 682_157, 76_646, 5_786_732, 15_034_238, 929_149, 1_058_344, 7_652_303, 5_296_206,
    1_185_288, 13_121_826, 1_809_874, 10_274_861, 2_288_709, 2_573_837, 7_652_303,
];

/// What follows the commitment to witnesses, given the solution; and the same without it, which is what is signed.
type Tail = fn(&[u8]) -> (Vec<u8>, Vec<u8>);

struct Signet {
    key: Keypair,
    genesis: Block,
}

impl Signet {
    fn new() -> Signet {
        let secret = SecretKey::from_slice(&[7; 32]).expect("below the group order");
        let genesis = bitcoin::constants::genesis_block(Network::Signet);
        Signet { key: Keypair::from_secret_key(&Secp256k1::new(), &secret), genesis }
    }

    fn challenge(&self) -> ScriptBuf {
        let key = self.key.public_key().serialize();
        Builder::new().push_slice(key).push_opcode(OP_CHECKSIG).into_script()
    }

    /// A block with this behind its commitment, without its proof of work.
    fn block(&self, tail: &[u8]) -> Block {
        let reward = regtest::output(5_000_000_000, ScriptBuf::from_bytes(vec![0x51]));
        let coinbase = regtest::coinbase(1, 0, vec![reward]);
        let mut block = Block { header: self.genesis.header, txdata: vec![coinbase] };
        block.header.version = bitcoin::block::Version::from_consensus(0x2000_0000);
        block.header.prev_blockhash = self.genesis.block_hash();
        block.header.time += 600;
        let root = block.witness_root().expect("there is a coinbase");
        let commitment = Block::compute_witness_commitment(&root, &[0; 32]);
        let script = [&regtest::COMMITMENT_START[..], commitment.as_byte_array(), tail].concat();
        block.txdata[0].output.push(regtest::output(0, script.into()));
        set_root(&mut block);
        block
    }

    /// What a solution holds: the input script and the witness that solve the challenge for a block that is `unsolved`.
    fn solution(&self, unsolved: &Block) -> Vec<u8> {
        let header = serialize(&unsolved.header);
        // Version, parent and root; then the time.
        let signed = push(&header[..72]);
        let spent = spend(OutPoint::null(), [&[0], &signed[..]].concat().into(), self.challenge());
        let outpoint = OutPoint::new(spent.compute_txid(), 0);
        let spend = spend(outpoint, ScriptBuf::new(), ScriptBuf::from_bytes(vec![OP_RETURN.to_u8()]));
        let hash =
            SighashCache::new(&spend).legacy_signature_hash(0, &self.challenge(), EcdsaSighashType::All.to_u32());
        let message = Message::from_digest(hash.expect("there is an input 0").to_byte_array());
        let mut signature = Secp256k1::new().sign_ecdsa(&message, &self.key.secret_key()).serialize_der().to_vec();
        signature.push(EcdsaSighashType::All as u8);
        [serialize(&ScriptBuf::from(push(&signature))), vec![0]].concat()
    }

    /// A block that is solved with what `change` makes of the solution.
    fn solved(&self, tail: Tail, change: impl Fn(&mut Vec<u8>)) -> Block {
        let mut solution = self.solution(&self.block(&tail(&[]).1));
        change(&mut solution);
        self.block(&tail(&solution).0)
    }
}

fn set_root(block: &mut Block) {
    block.header.merkle_root = block.compute_merkle_root().unwrap_or(TxMerkleNode::all_zeros());
}

fn spend(outpoint: OutPoint, script_sig: ScriptBuf, output: ScriptBuf) -> Transaction {
    let mut input = regtest::unsigned(outpoint);
    (input.script_sig, input.sequence) = (script_sig, bitcoin::Sequence::ZERO);
    let mut transaction = regtest::transaction(vec![input], vec![regtest::output(0, output)]);
    transaction.version = transaction::Version(0);
    transaction
}

/// A push in its shortest form.
fn push(bytes: &[u8]) -> Vec<u8> {
    Builder::new().push_slice(PushBytesBuf::try_from(bytes.to_vec()).expect("it is short")).into_script().into_bytes()
}

fn headed(solution: &[u8]) -> Vec<u8> {
    [&HEADER, solution].concat()
}

/// Every case: its name, the block, and whether it is solved.
fn cases(signet: &Signet) -> Vec<(&'static str, Block, bool)> {
    let plain: Tail = |solution| (push(&headed(solution)), push(&HEADER));
    let intact = |_: &mut Vec<u8>| {};
    let mut cases = Vec::new();
    // Where the solution may stand, and what is signed then.
    let tails: [(&str, Tail, bool); 9] = [
        ("one push", plain, true),
        (
            "a push in a longer form is signed in its shortest",
            |solution| {
                let data = headed(solution);
                ([&[0x4d, data.len() as u8, 0], &data[..]].concat(), push(&HEADER))
            },
            true,
        ),
        (
            "an empty push is signed as its opcode",
            |solution| {
                let (solved, signed) = (push(&headed(solution)), push(&HEADER));
                ([&solved, &[0x51, 0x4c, 0][..]].concat(), [&signed, &[0x51, 0x4c][..]].concat())
            },
            true,
        ),
        (
            "what is cut off is not signed",
            |solution| ([push(&headed(solution)), vec![5, 1]].concat(), push(&HEADER)),
            true,
        ),
        (
            "what is cut off hides the solution behind it",
            |solution| ([vec![0x4e, 0xff, 0xff, 0, 0], push(&headed(solution))].concat(), push(&HEADER)),
            false,
        ),
        (
            "another push before it",
            |solution| {
                ([vec![0x4c, 2, 7, 7], push(&headed(solution))].concat(), [vec![2, 7, 7], push(&HEADER)].concat())
            },
            true,
        ),
        (
            "the head alone is no solution",
            |solution| ([push(&HEADER), push(&headed(solution))].concat(), [push(&HEADER), push(&HEADER)].concat()),
            true,
        ),
        (
            "of two solutions the first counts",
            |solution| {
                ([push(&headed(&[7])), push(&headed(solution))].concat(), [push(&HEADER), push(&headed(&[7]))].concat())
            },
            false,
        ),
        (
            "the second is signed as it stands",
            |solution| {
                let second = push(&headed(&[7]));
                ([push(&headed(solution)), second.clone()].concat(), [push(&HEADER), second].concat())
            },
            true,
        ),
    ];
    for (name, tail, solved) in tails {
        cases.push((name, signet.solved(tail, intact), solved));
    }
    cases.push(("no solution", signet.block(&[]), false));
    cases.push(("an empty solution", signet.block(&push(&HEADER)), false));
    cases.push(("bytes behind the witness", signet.solved(plain, |solution| solution.push(0)), false));
    cases.push(("no witness", signet.solved(plain, |solution| solution.truncate(solution.len() - 1)), false));
    let witness = |solution: &mut Vec<u8>| {
        solution.pop();
        solution.extend([1, 1, 1]);
    };
    cases.push(("a witness for what takes none", signet.solved(plain, witness), false));
    let long = |solution: &mut Vec<u8>| drop(solution.splice(..1, [0xfd, solution[0], 0]));
    cases.push(("a length in a longer form", signet.solved(plain, long), false));
    let mut block = signet.solved(plain, intact);
    block.header.time += 1;
    cases.push(("another time than was signed", block, false));
    let mut block = signet.solved(plain, intact);
    let last = block.txdata[0].output.last().expect("the commitment").script_pubkey.as_bytes()[..38].to_vec();
    block.txdata[0].output.push(TxOut { value: bitcoin::Amount::ZERO, script_pubkey: last.into() });
    set_root(&mut block);
    cases.push(("a solution in a commitment that is not the last", block, false));
    let mut block = signet.block(&[]);
    block.txdata.clear();
    cases.push(("no transaction", block, false));
    cases
}

#[test]
fn signet_solutions_get_the_verdict_that_core_gives() {
    let Some(peers) = peers() else { return };
    let signet = Signet::new();
    let params = Params::signet(Some(signet.challenge()));
    assert_eq!(params.genesis_hash, signet.genesis.block_hash(), "signets share their first block");
    let options = [
        format!("-signetchallenge={}", signet.challenge().to_hex_string()),
        format!("-mocktime={}", signet.genesis.header.time + 1_000 * regtest::SPACING),
    ];
    let mut core = Bitcoind::start_in(&peers, tempfile::tempdir().unwrap(), "signet", &options);
    let mut groat = Groat::on(params, 2);
    let target = Target::from_compact(CompactTarget::from_consensus(0x1e03_77ae));
    let cases = cases(&signet);
    assert_eq!(cases.len(), NONCES.len(), "a nonce for each case");
    let mut nonces = Vec::new();
    for ((name, mut block, solved), nonce) in cases.into_iter().zip(NONCES) {
        block.header.nonce = nonce;
        while !target.is_met_by(block.block_hash()) {
            block.header.nonce += 1;
        }
        nonces.push(block.header.nonce);
        let bytes = serialize(&block);
        let answers = [&mut core as &mut dyn Judge, &mut groat].map(|judge| (judge.submit(&bytes), judge.tip()));
        assert_eq!(answers[0], answers[1], "{name}: bitcoind (left) and groat differ");
        assert_eq!(answers[0].0, if solved { Ok(()) } else { Err(REFUSED.into()) }, "{name}");
    }
    assert_eq!(nonces, NONCES, "the blocks changed: their nonces are those on the left now");
}
