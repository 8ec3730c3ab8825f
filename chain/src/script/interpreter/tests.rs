//! What the vectors do not show by name.

use super::checksig::find_and_delete;
use super::*;

#[test]
fn find_and_delete_removes_whole_pushes_at_operation_boundaries() {
    let signature = [0xaa, 0xbb];
    let push = [2, 0xaa, 0xbb];
    for (code, left) in [
        (push.to_vec(), Some(vec![])),
        ([&[OP_1][..], &push, &push, &[OP_2], &push].concat(), Some(vec![OP_1, OP_2])),
        ([&[OP_PUSHDATA1, 3][..], &push].concat(), None), // inside another push
        (vec![OP_PUSHDATA1, 2, 0xaa, 0xbb], None),        // pushed in another form
        ([&push[..], &[5, 1]].concat(), Some(vec![5, 1])), // before a cut push
        ([&[1][..], &push].concat(), None),
        (vec![], None),
    ] {
        assert_eq!(find_and_delete(&code, &signature), left, "{code:02x?}");
    }
    assert_eq!(find_and_delete(&[OP_0, OP_1, OP_0], &[]), Some(vec![OP_1]), "no signature is looked for as OP_0");
}

#[test]
fn only_the_outermost_untaken_branch_decides() {
    let mut open = Conditions::default();
    for taken in [true, false, true] {
        open.push(taken);
    }
    open.toggle().expect("an IF is open");
    assert!(!open.all_true(), "toggling inside an untaken branch changes nothing");
    open.pop().expect("an IF is open");
    open.toggle().expect("an IF is open");
    assert!(open.all_true(), "the untaken branch has become taken");
    open.pop().expect("an IF is open");
    open.pop().expect("an IF is open");
    assert_eq!(
        (open.pop(), open.toggle()),
        (Err(ScriptError::UnbalancedConditional), Err(ScriptError::UnbalancedConditional))
    );
}
