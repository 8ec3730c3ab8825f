//! Branches: which tip wins, and what an invalid block does to its descendants and to the chain it would have joined.

use bitcoin::consensus::encode::serialize;
use bitcoin::hashes::Hash;
use bitcoin::opcodes::all::OP_PUSHBYTES_0;
use bitcoin::{Amount, Block, BlockHash, Witness};

use super::{Builder, Scenario, add, code, pay};
use crate::regtest::{self, seal};

pub fn scenario() -> Scenario {
    let mut builder = Builder::new("forks", &[]);
    parents(&mut builder);
    out_of_order(&mut builder);
    reorganisations(&mut builder);
    builder.scenario
}

/// A block with a coinbase alone on any parent; `salt` tells siblings apart.
fn on(parent: BlockHash, height: u32, salt: u64) -> Block {
    let reward = regtest::output(regtest::subsidy(height).to_sat(), super::anyone());
    regtest::block(parent, regtest::time_at(height), vec![regtest::coinbase(height, salt, vec![reward])])
}

fn parents(builder: &mut Builder) {
    builder.case("the parent is known", "prev-blk-not-found", |block| {
        block.header.prev_blockhash = BlockHash::from_byte_array([3; 32]);
        regtest::mine(&mut block.header);
    });
    let height = builder.height + 1;
    // Invalid when connected, and invalid when it came in: both are remembered.
    let mut greedy = builder.empty();
    greedy.txdata[0].output[0].value += Amount::ONE_SAT;
    seal(&mut greedy);
    let mut misplaced = on(builder.tip, height + 1, 0);
    misplaced.header.time = regtest::time_at(height);
    seal(&mut misplaced);
    for (block, reason) in [(greedy, "bad-cb-amount"), (misplaced, "bad-cb-height")] {
        builder.refuse("a block that will be a parent", &block, reason);
        builder.refuse("an invalid block is remembered", &block, "duplicate-invalid");
        builder.refuse("the parent is valid", &on(block.block_hash(), height + 1, 0), "bad-prevblk");
    }
    let block = builder.valid();
    builder.accept("a block to hand in twice", &block);
    builder.refuse("a known block is a duplicate", &block, "duplicate");
}

fn out_of_order(builder: &mut Builder) {
    // A bad witness does not tell on the block: its child may come first, and the block itself again.
    let parent = builder.valid();
    let mut stripped = parent.clone();
    stripped.txdata[0].input[0].witness = Witness::from_slice(&[[0; 31]]);
    builder.refuse("a mutated block is not remembered", &stripped, "bad-witness-nonce-size");
    let child = on(parent.block_hash(), builder.height + 2, 0);
    builder.step("a child waits for its parent", serialize(&child), Ok(()));
    // Of two that wait the one that came first wins.
    let later = on(parent.block_hash(), builder.height + 2, 1);
    builder.step("another child waits too", serialize(&later), Ok(()));
    // The parent brings them; the steps are recorded with the tip as it is then.
    builder.accept("a parent comes after its child", &parent);
    builder.scenario.steps.last_mut().expect("just recorded").tip = child.block_hash();
    builder.accept("", &child);
    builder.scenario.steps.pop();
}

fn reorganisations(builder: &mut Builder) {
    let failing = builder.fund(vec![code(&[OP_PUSHBYTES_0])]).remove(0).0;
    let fork = builder.tip;
    let height = builder.height;
    // The main branch: one block.
    let main = builder.valid();
    builder.accept("the main branch", &main);
    // A rival of the same work comes later and waits; its child fails in a script, and the main branch comes back.
    let rival = on(fork, height + 1, 1);
    builder.step("of equal work the first seen stays", serialize(&rival), Ok(()));
    let mut bad = on(rival.block_hash(), height + 2, 1);
    add(&mut bad, pay(failing, 100_000));
    let reason = "block-script-verify-flag-failed (Script evaluated without error but finished with a false/empty top stack element)";
    builder.refuse("a branch with a bad block is left again", &bad, reason);
    builder.refuse("a descendant of a bad block", &on(bad.block_hash(), height + 3, 1), "bad-prevblk");
    // Another child of the rival is good: the branch wins.
    let winner = on(rival.block_hash(), height + 2, 2);
    builder.step("a branch of more work wins", serialize(&winner), Ok(()));
    builder.scenario.steps.last_mut().expect("just recorded").tip = winner.block_hash();
    // And the main branch wins back with two more blocks, its payment with it.
    let second = on(main.block_hash(), height + 2, 3);
    builder.step("of equal work the first seen stays, again", serialize(&second), Ok(()));
    builder.scenario.steps.last_mut().expect("just recorded").tip = winner.block_hash();
    let third = on(second.block_hash(), height + 3, 3);
    builder.accept("", &second);
    builder.scenario.steps.pop();
    builder.accept("a payment is mined again with its branch", &third);
    let block = builder.valid();
    builder.accept("the chain goes on", &block);
}
