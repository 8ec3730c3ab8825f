//! The wallet as a person meets it: `groat` in a terminal (that of `script`, of util-linux), which is asked and answers.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use groat_tests::groatd::repeat;
use groat_tests::running::PATIENCE;
use serde_json::json;

use crate::wallet::{COIN, ELSEWHERE, Groat, Node, PASSWORD, on_groatd, two_wallets};

/// A command in a terminal.
struct Terminal {
    process: Child,
    keys: ChildStdin,
    screen: Receiver<Vec<u8>>,
    /// All that was shown.
    shown: String,
    /// Up to where it was waited for.
    read: usize,
}

impl Terminal {
    /// None: this machine has no `script`.
    fn start(command: &Command) -> Option<Terminal> {
        let words = [command.get_program()].into_iter().chain(command.get_args());
        let line: Vec<String> = words.map(|word| format!("'{}'", word.to_string_lossy())).collect();
        let mut process = Command::new("script");
        process.args(["-qfec", &line.join(" "), "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let Ok(mut process) = process.spawn() else {
            eprintln!("SKIPPED: there is no `script` (package bsdutils)");
            return None;
        };
        let (mut output, (sender, screen)) = (process.stdout.take().unwrap(), channel());
        std::thread::spawn(move || {
            let mut some = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut some) {
                let _ = sender.send(some[..length].to_vec());
            }
        });
        Some(Terminal { keys: process.stdin.take().unwrap(), process, screen, shown: String::new(), read: 0 })
    }

    /// Waits until this is shown, and gives what came before it.
    fn expect(&mut self, text: &str) -> String {
        let begun = Instant::now();
        loop {
            if let Some(at) = self.shown[self.read..].find(text) {
                let before = self.shown[self.read..self.read + at].to_owned();
                self.read += at + text.len();
                return before;
            }
            let wait = PATIENCE.saturating_sub(begun.elapsed());
            match self.screen.recv_timeout(wait) {
                Ok(some) => self.shown.push_str(&String::from_utf8_lossy(&some)),
                Err(_) => panic!("expected on the screen: {text:?}\nshown:\n{}\n{}", self.shown, repeat()),
            }
        }
    }

    fn type_line(&mut self, text: &str) {
        writeln!(self.keys, "{text}").unwrap();
    }

    /// Waits until the terminal shows nothing of what is typed: so it is a moment after a secret was asked for.
    fn wait_for_secrecy(&self) {
        let begun = Instant::now();
        loop {
            // What runs in the terminal is the child of `script`.
            let id = self.process.id();
            let child = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
            let terminal = format!("/proc/{}/fd/0", child.split_whitespace().next().unwrap_or_default());
            let state = Command::new("stty").args(["-F", &terminal, "-a"]).output().unwrap();
            if String::from_utf8_lossy(&state.stdout).split_whitespace().any(|word| word == "-echo") {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "the terminal shows what is typed\n{}\n{}", self.shown, repeat());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn answer(&mut self, question: &str, text: &str) -> String {
        let before = self.expect(question);
        if SECRETS.contains(&question) {
            self.wait_for_secrecy();
        }
        self.type_line(text);
        before
    }

    /// Waits for the end. Gives the exit code and all that was shown.
    fn end(mut self) -> (Option<i32>, String) {
        while let Ok(some) = self.screen.recv_timeout(PATIENCE) {
            self.shown.push_str(&String::from_utf8_lossy(&some));
        }
        (self.process.wait().unwrap().code(), std::mem::take(&mut self.shown))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.process.kill();
    }
}

/// The questions whose answers are not to be seen.
const SECRETS: [&str; 4] =
    ["Choose a wallet password: ", "The same again: ", "BIP39 passphrase: ", "Wallet password: "];

/// 24 words, of which the first 12 have a checksum that fits.
const DOUBTFUL: [&str; 2] = [
    "Abandon  abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon   ABOUT ",
    "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon almost",
];

#[test]
fn create_and_restore_ask_until_they_are_sure() {
    let rpc = groat_tests::bitcoind::Rpc::new(([127, 0, 0, 1], 1).into(), "");
    let groat = Groat::new(&Node { rpc: &rpc, cookie: "/nowhere".into() });
    let Some(mut made) = Terminal::start(&groat.plain("w", &["create", "w", "--passphrase"])) else { return };
    made.answer("Choose a wallet password: ", PASSWORD);
    made.answer("The same again: ", "correct house");
    made.expect("The two differ.");
    made.answer("Choose a wallet password: ", PASSWORD);
    made.answer("The same again: ", PASSWORD);
    made.expect("show them to nobody:");
    let shown = made.expect("Word ");
    let words: Vec<String> =
        shown.split_whitespace().filter(|word| word.chars().all(char::is_alphabetic)).map(str::to_owned).collect();
    assert_eq!(words.len(), 12, "{shown}");
    // The first is answered wrong, and asked again.
    let number: usize = made.answer("? ", "nonsense").parse().unwrap();
    made.expect("look at what you have written down.");
    made.answer(&format!("Word {number}? "), &words[number - 1]);
    for _ in 0..2 {
        made.expect("Word ");
        let number: usize = made.expect("? ").parse().unwrap();
        made.type_line(&words[number - 1]);
    }
    made.answer("BIP39 passphrase: ", "25th");
    made.answer("The same again: ", "52th");
    made.expect("The two differ.");
    made.answer("BIP39 passphrase: ", "25th");
    made.answer("The same again: ", "25th");
    made.expect("Ready. First address:  ");
    let (code, shown) = made.end();
    assert_eq!(code, Some(0), "{shown}");
    assert!(!shown.contains(PASSWORD) && !shown.contains("25th"), "expected: no secret on the screen\n{shown}");

    let address = |groat: &Groat, name: &str| groat.address(name);
    let Some(mut back) = Terminal::start(&groat.plain("v", &["restore", "v", "--passphrase"])) else { return };
    back.answer("> ", &format!("  {}   {}", words[0].to_uppercase(), words[1]));
    back.answer("> ", "abuot");
    back.expect("did you mean about?");
    back.answer("> ", &words[2..].join(" "));
    back.answer("> ", "");
    back.answer("Choose a wallet password: ", PASSWORD);
    back.answer("The same again: ", PASSWORD);
    back.answer("BIP39 passphrase: ", "25th");
    back.expect("Restored \"v\"");
    assert_eq!(back.end().0, Some(0));
    assert_eq!(address(&groat, "v"), address(&groat, "w"), "expected: the same wallet from the words");
}

#[test]
fn half_of_24_words_is_not_taken_for_12() {
    let rpc = groat_tests::bitcoind::Rpc::new(([127, 0, 0, 1], 1).into(), "");
    let groat = Groat::new(&Node { rpc: &rpc, cookie: "/nowhere".into() });
    let Some(mut back) = Terminal::start(&groat.plain("w", &["restore", "w"])) else { return };
    back.answer("> ", DOUBTFUL[0]);
    back.expect("12 words, and their checksum fits.");
    back.answer("> ", DOUBTFUL[1]);
    back.answer("Choose a wallet password: ", PASSWORD);
    back.answer("The same again: ", PASSWORD);
    back.expect("Restored \"w\"");
    assert_eq!(back.end().0, Some(0));
    assert_eq!(groat.words("w").split(' ').count(), 24);
}

#[test]
fn a_payment_is_shown_and_made_after_a_yes_alone() {
    on_groatd(|node| {
        let groat = two_wallets(node);
        let to = groat.address("poor");
        let send = groat.plain("rich", &["send", &to, "0.001btc"]);
        // Enter is no; so are Ctrl-C and a piped yes.
        for (keys, code) in [("", Some(5)), ("n", Some(5)), ("\u{3}", None)] {
            let Some(mut asked) = Terminal::start(&send) else { return };
            asked.answer("Wallet password: ", PASSWORD);
            asked.expect("100,000 sat   0.00100000 BTC");
            asked.answer("Send? [y/N] ", keys);
            let (ended, shown) = asked.end();
            assert!(code.is_none_or(|code| ended == Some(code)) && ended != Some(0), "{keys:?}: {ended:?}\n{shown}");
        }
        let password = groat.folder.path().join("password").display().to_string();
        let mut piped = groat.plain("rich", &["send", &to, "1000", "--password-file", &password]);
        let mut piped = piped.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let _ = piped.stdin.take().unwrap().write_all(b"y\n");
        let piped = piped.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&piped.stderr);
        assert!(piped.status.code() == Some(2) && said.contains("give --yes"), "{:?}: {said}", piped.status);
        assert_eq!(node.call("getrawmempool", json!([])), json!([]));
        assert_eq!(groat.balance("rich"), [50 * COIN, 0, 0], "expected: nothing is kept of what was not sent");

        let Some(mut asked) = Terminal::start(&send) else { return };
        asked.answer("Wallet password: ", "wrong");
        assert_eq!(asked.end().0, Some(1));
        let Some(mut asked) = Terminal::start(&send) else { return };
        asked.answer("Wallet password: ", PASSWORD);
        asked.expect(&to);
        let fee: u64 = {
            asked.expect(" vB");
            asked.expect(" sat").trim().replace(',', "").parse().unwrap()
        };
        asked.answer("Send? [y/N] ", "y");
        asked.expect("Sent ");
        assert_eq!(asked.end().0, Some(0));
        assert_eq!(groat.balance("poor"), [0, 100_000, 0]);
        assert_eq!(groat.balance("rich")[1], 50 * COIN - 100_000 - fee, "expected: the fee that was shown");
        node.mine(1, ELSEWHERE);
        assert_eq!(groat.balance("rich")[0], 50 * COIN - 100_000 - fee);
    });
}
