//! The wallet on a full disk and with damaged files: one sentence that says what to do, and nothing is lost.

use std::path::Path;

use groat_tests::bitcoind::Rpc;
use groat_tests::groatd::repeat;
use serde_json::json;

use crate::crash::Mount;
use crate::wallet::{COIN, ELSEWHERE, Groat, Node, PASSWORD, on_groatd, two_wallets};

/// Leaves no room in a folder's file system.
fn fill(folder: &Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(folder.join("ballast")).unwrap();
    // In small steps to the last byte.
    for size in [65_536, 4096, 1] {
        while file.write_all(&vec![7; size]).is_ok() {}
    }
}

#[test]
fn on_a_full_disk_nothing_is_sent_or_lost() {
    on_groatd(|node| {
        let Some(disk) = Mount::new(&["-t", "tmpfs", "-o", "size=8m", "tmpfs"]) else { return };
        let mut groat = two_wallets(node);
        let wallets = groat.folder.path().join("regtest");
        groat_tests::groatd::copy_folder(&wallets, &disk.path().join("regtest"));
        let away = std::mem::replace(&mut groat.folder, tempfile::tempdir_in(disk.path()).unwrap());
        std::fs::write(groat.folder.path().join("password"), PASSWORD).unwrap();
        std::fs::rename(disk.path().join("regtest"), groat.folder.path().join("regtest")).unwrap();
        drop(away);
        let address = groat.address("rich");
        fill(disk.path());

        let full = ["is full", "make room"];
        groat.run("rich", &["send", ELSEWHERE, "1btc"]).failed(1, &full);
        assert_eq!(node.call("getrawmempool", json!([])), json!([]), "expected: what cannot be written is not sent");
        groat.run("rich", &["receive", "--new"]).failed(1, &full);
        groat.run("third", &["create", "third"]).failed(1, &full);
        groat.run("rich", &["password", "--new-password-file", "/proc/version"]).failed(1, &full);

        std::fs::remove_file(disk.path().join("ballast")).unwrap();
        assert_eq!(groat.json("rich", &["list"])["wallets"].as_array().unwrap().len(), 2, "expected: no half wallet");
        assert_eq!(groat.balance("rich"), [50 * COIN, 0, 0]);
        assert_eq!(groat.address("rich"), address, "expected: the address that was refused is still to be given");
        assert_eq!(groat.words("rich").split(' ').count(), 12, "expected: the old password still opens it");
        groat.json("rich", &["send", ELSEWHERE, "1btc"]);
        assert_eq!(node.call("getrawmempool", json!([])).as_array().unwrap().len(), 1);
    });
}

#[test]
fn a_wallet_file_damaged_anywhere_is_read_right_or_refused_with_a_way_out() {
    let rpc = Rpc::new(([127, 0, 0, 1], 1).into(), "");
    let groat = Groat::new(&Node { rpc: &rpc, cookie: "/nowhere".into() });
    groat.json("w", &["create", "w"]);
    let before = groat.json("w", &["info"]);
    let path = groat.folder.path().join("regtest/wallets/w/wallet.sqlite");
    let whole = std::fs::read(&path).unwrap();
    // The head of each page, where its form is described, places in between, and lost ends.
    let places = (0..whole.len()).step_by(4096).flat_map(|page| [page, page + 5, page + 2011]);
    let flipped = places.map(|place| {
        let mut bytes = whole.clone();
        bytes[place] ^= 0x55;
        (format!("byte {place} is another"), bytes)
    });
    let cut =
        [0, 1, 100, 4096, 10_000, whole.len() - 1].map(|end| (format!("it ends at {end}"), whole[..end].to_vec()));
    let mut refused = 0;
    for (what, bytes) in flipped.chain(cut) {
        std::fs::write(&path, bytes).unwrap();
        let said = groat.run("w", &["info"]);
        match said.code {
            Some(0) => assert_eq!(said.json()["genesis"], before["genesis"], "{what}"),
            _ => {
                refused += 1;
                said.failed(1, &["damaged", "groat restore", "groat backup words"]);
            }
        }
        assert_eq!(
            groat.words("w").split(' ').count(),
            12,
            "expected: the words, whatever has become of the rest: {what}"
        );
    }
    assert!(refused >= 10, "expected: most damages are noticed, {refused} were\n{}", repeat());
    std::fs::write(&path, whole).unwrap();
    assert_eq!(groat.json("w", &["info"]), before);
}

#[test]
fn no_address_is_given_that_the_keys_do_not_give() {
    let rpc = Rpc::new(([127, 0, 0, 1], 1).into(), "");
    let groat = Groat::new(&Node { rpc: &rpc, cookie: "/nowhere".into() });
    groat.json("w", &["create", "w"]);
    let address: bitcoin::Address<_> = groat.address("w").parse().unwrap();
    let script = address.assume_checked().script_pubkey();
    let path = groat.folder.path().join("regtest/wallets/w/wallet.sqlite");
    let mut bytes = std::fs::read(&path).unwrap();
    let place = bytes.windows(script.len()).position(|window| window == script.as_bytes()).unwrap();
    bytes[place + 20] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    groat.run("w", &["receive"]).failed(1, &["damaged", "groat restore"]);
}

/// Who has the words alone sweeps all there is.
#[test]
fn a_restored_wallet_pays_all_it_has_to_another() {
    on_groatd(|node| {
        let groat = two_wallets(node);
        for _ in 0..3 {
            groat.json("rich", &["send", &groat.address("poor"), "7btc", "--feerate", "1"]);
            node.mine(1, ELSEWHERE);
        }
        let words = groat.file("words", &groat.words("poor"));
        groat.json("swept", &["restore", "swept", "--type", "segwit", "--words-file", &words]);
        let home = groat.address("rich");
        let before = groat.balance("rich")[0];
        let sent = groat.json("swept", &["send", &home, "max", "--feerate", "3"]);
        let (paid, fee) = (sent["paid_sat"].as_u64().unwrap(), sent["fee_sat"].as_u64().unwrap());
        assert_eq!((paid + fee, &sent["change"]), (21 * COIN, &json!([])), "expected: all of it\n{sent}");
        node.mine(1, ELSEWHERE);
        for name in ["swept", "poor"] {
            assert_eq!(groat.balance(name), [0, 0, 0], "{name}");
        }
        assert_eq!(groat.balance("rich"), [before + paid, 0, 0]);
        groat.run("swept", &["send", &home, "max"]).failed(3, &[]);
    });
}
