//! Which rules hold at a height, and how miners vote for one.

use super::*;
use crate::params::{Buried, Deployment};
use crate::rules::deployment::*;
use crate::script::Flags;

#[test]
fn script_flags_grow_with_the_height() {
    let params = Params::main();
    let always = Flags::P2SH | Flags::WITNESS | Flags::TAPROOT;
    let mut expected = always;
    assert_eq!(script_flags(0, NO_HASH(), &params), always, "from the first block on");
    for (height, flag) in [
        (363_725, Flags::DERSIG),
        (388_381, Flags::CHECKLOCKTIMEVERIFY),
        (419_328, Flags::CHECKSEQUENCEVERIFY),
        (481_824, Flags::NULLDUMMY),
    ] {
        assert_eq!(script_flags(height - 1, NO_HASH(), &params), expected, "before {height}");
        expected |= flag;
        assert_eq!(script_flags(height, NO_HASH(), &params), expected, "at {height}");
    }
}

#[test]
fn exception_blocks_have_flags_of_their_own() {
    let params = Params::main();
    let bip16 = params.script_flag_exceptions[0].0;
    assert_eq!(script_flags(170_060, bip16, &params), Flags::NONE);
    let taproot = params.script_flag_exceptions[1].0;
    let buried = Flags::DERSIG | Flags::CHECKLOCKTIMEVERIFY | Flags::CHECKSEQUENCEVERIFY | Flags::NULLDUMMY;
    assert_eq!(script_flags(692_261, taproot, &params), Flags::P2SH | Flags::WITNESS | buried);
}

/// Headers of `periods` periods of regtest's testdummy; `votes` blocks of each signal.
fn voting(deployment: &Deployment, votes: &[u32]) -> Headers {
    let mut headers = branch(&regtest(), deployment.period * votes.len() as u32 - 1);
    for (height, header) in headers.0.iter_mut().enumerate() {
        let (period, place) = (height as u32 / deployment.period, height as u32 % deployment.period);
        let signal = if place < votes[period as usize] { 1 << deployment.bit } else { 0 };
        header.version = Version::from_consensus(VERSIONBITS_TOP_BITS | signal);
    }
    headers
}

fn testdummy() -> Deployment {
    regtest().deployments[0]
}

#[test]
fn a_deployment_starts_locks_in_and_is_active_a_period_each() {
    let (dummy, params) = (testdummy(), regtest());
    // Votes before the start do not count, and those one short of the threshold do not either.
    let headers = voting(&dummy, &[144, 107, 108, 0, 0]);
    let states: Vec<_> = (0..=5).map(|period| state(&dummy, &headers, 144 * period)).collect();
    use State::*;
    assert_eq!(states, [Defined, Started, Started, LockedIn, Active, Active]);
    assert_eq!(state(&dummy, &headers, 144 * 3 - 1), Started, "a period shares a state");
    let since = |height| state_since(&dummy, &headers, height);
    assert_eq!((since(143), since(300), since(144 * 3 + 9), since(144 * 5)), (0, 144, 432, 576));
    let version = |count: usize| compute_block_version(&Headers(headers.0[..count].to_vec()), &params);
    assert_eq!(version(143), 0x2000_0000, "defined");
    assert_eq!(version(144), 0x3000_0000, "started");
    assert_eq!(version(144 * 3), 0x3000_0000, "locked in");
    assert_eq!(version(144 * 4), 0x2000_0000, "active");
}

#[test]
fn a_deployment_fails_at_its_timeout_unless_locked_in() {
    let time = |height: u32| i64::from(regtest().genesis.header.time + 600 * height);
    let dummy = Deployment { start_time: time(144), timeout: time(400), ..testdummy() };
    use State::*;
    let states = |votes: &[u32]| {
        let headers = voting(&dummy, votes);
        (0..=votes.len() as u32).map(|period| state(&dummy, &headers, 144 * period)).collect::<Vec<_>>()
    };
    assert_eq!(states(&[0, 0, 0, 144, 144]), [Defined, Defined, Started, Failed, Failed, Failed]);
    assert_eq!(states(&[0, 0, 108, 0, 0]), [Defined, Defined, Started, LockedIn, Active, Active]);
    let late = Deployment { min_activation_height: 144 * 5, ..dummy };
    let headers = voting(&late, &[0, 0, 108, 0, 0, 0]);
    assert_eq!(state(&late, &headers, 144 * 4), LockedIn, "below the minimum height");
    assert_eq!(state(&late, &headers, 144 * 5), Active);
}

#[test]
fn a_deployment_may_be_active_always_or_never() {
    let headers = voting(&testdummy(), &[144, 144, 144]);
    let always = Deployment { start_time: Deployment::ALWAYS_ACTIVE, ..testdummy() };
    let never = Deployment { start_time: Deployment::NEVER_ACTIVE, ..testdummy() };
    assert_eq!((state(&always, &headers, 0), state_since(&always, &headers, 300)), (State::Active, 0));
    assert_eq!((state(&never, &headers, 432), state_since(&never, &headers, 300)), (State::Failed, 0));
}

#[test]
fn signals_are_counted_within_their_period() {
    let dummy = testdummy();
    let headers = voting(&dummy, &[144, 50]);
    let at = |height| signals(&dummy, &headers, height);
    assert_eq!(at(143), Signals { elapsed: 144, count: 144, possible: true });
    assert_eq!(at(144 + 60), Signals { elapsed: 61, count: 50, possible: true });
    assert_eq!(at(144 + 85), Signals { elapsed: 86, count: 50, possible: true }, "36 may stay silent");
    assert_eq!(at(144 + 86), Signals { elapsed: 87, count: 50, possible: false });
    assert!(!is_signalling(&dummy, 0x1000_0000), "the top bits are others");
    assert!(!is_signalling(&dummy, 0x5000_0000) && is_signalling(&dummy, 0x3000_0001));
}

#[test]
fn buried_deployments_hold_from_their_height_on() {
    let params = Params::testnet3();
    for deployment in Buried::ALL {
        let height = params.activation_height(deployment);
        assert!(is_active(deployment, height, &params) && !is_active(deployment, height - 1, &params));
    }
}
