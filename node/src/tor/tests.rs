//! Against a small control port on loopback that answers as Tor's daemon does.
#![expect(clippy::unwrap_used, reason = "tests may panic")]

use std::io::{BufRead, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use super::*;

const COOKIE: [u8; 32] = [0x5a; 32];
const SERVICE: &str = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd";
const KEY: &str = "ED25519-V3:c2VjcmV0";

/// How the daemon lets people in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Auth {
    Nothing,
    SafeCookie,
    Password,
    /// A cookie, but one that it does not know itself.
    Liar,
}

/// Answers one client until `ADD_ONION`, then hangs up when told; gives the commands.
fn daemon(
    listener: &TcpListener,
    auth: Auth,
    cookie_file: &str,
    hang_up: std::sync::mpsc::Receiver<()>,
) -> Vec<String> {
    let (mut stream, _) = listener.accept().unwrap();
    let mut lines = std::io::BufReader::new(stream.try_clone().unwrap()).lines();
    let (mut commands, mut client_nonce, mut open) = (Vec::new(), Vec::new(), false);
    let server_nonce = [7; 32];
    let hmac = |key: &[u8], client: &[u8]| {
        let mut engine = HmacEngine::<sha256::Hash>::new(key);
        [&COOKIE[..], client, &server_nonce].iter().for_each(|part| engine.input(part));
        Hmac::<sha256::Hash>::from_engine(engine).to_byte_array().to_lower_hex_string()
    };
    while let Some(Ok(line)) = lines.next() {
        commands.push(line.clone());
        let words: Vec<&str> = line.split(' ').collect();
        let answer = match words[0] {
            "PROTOCOLINFO" => {
                let methods = match auth {
                    Auth::Nothing => "METHODS=NULL".into(),
                    Auth::Password => "METHODS=HASHEDPASSWORD".into(),
                    Auth::SafeCookie | Auth::Liar => format!("METHODS=COOKIE,SAFECOOKIE COOKIEFILE=\"{cookie_file}\""),
                };
                format!("250-PROTOCOLINFO 1\r\n250-AUTH {methods}\r\n250-VERSION Tor=\"0.4.8.1\"\r\n250 OK")
            }
            "AUTHCHALLENGE" => {
                client_nonce = Vec::from_hex(words[2]).unwrap();
                let hash = if auth == Auth::Liar { "00".repeat(32) } else { hmac(SERVER_KEY, &client_nonce) };
                format!("250 AUTHCHALLENGE SERVERHASH={hash} SERVERNONCE={}", server_nonce.to_lower_hex_string())
            }
            "AUTHENTICATE" => {
                open = match auth {
                    Auth::Nothing => line == "AUTHENTICATE",
                    Auth::Password => line == "AUTHENTICATE \"a \\\"word\\\\\"",
                    Auth::SafeCookie => words[1] == hmac(CLIENT_KEY, &client_nonce),
                    Auth::Liar => false,
                };
                if open { "250 OK".into() } else { "515 Bad authentication".into() }
            }
            "GETINFO" if open => "250-net/listeners/socks=\"10.0.0.1:1\" \"127.0.0.1:9150\"\r\n250 OK".into(),
            "ADD_ONION" if open && line.contains("PoWDefensesEnabled") => "512 Unrecognized option".into(),
            "ADD_ONION" if open => {
                let key =
                    if words[1] == "NEW:ED25519-V3" { format!("250-PrivateKey={KEY}\r\n") } else { String::new() };
                stream.write_all(format!("250-ServiceID={SERVICE}\r\n{key}250 OK\r\n").as_bytes()).unwrap();
                let _ = hang_up.recv();
                return commands;
            }
            _ => "514 Authentication required".into(),
        };
        stream.write_all(format!("{answer}\r\n").as_bytes()).unwrap();
    }
    commands
}

struct Setting {
    folder: tempfile::TempDir,
    listener: TcpListener,
}

impl Setting {
    fn new() -> Setting {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("co\"okie"), COOKIE).unwrap();
        Setting { folder, listener: TcpListener::bind("127.0.0.1:0").unwrap() }
    }

    fn options(&self, password: Option<&str>) -> Options {
        Options {
            control: self.listener.local_addr().unwrap(),
            password: password.map(str::to_owned),
            key_file: self.folder.path().join("onion_v3_private_key"),
            target: "127.0.0.1:8334".parse().unwrap(),
            port: 8333,
            wants_proxy: true,
            may_dial: true,
        }
    }

    fn cookie(&self) -> String {
        // As the daemon writes it: quoted, with escapes.
        self.folder.path().join("co\\\"ok\\151e").display().to_string()
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn next(told: &mut mpsc::Receiver<Told>, runtime: &tokio::runtime::Runtime) -> Told {
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), told.recv()).await.unwrap().unwrap() })
}

#[test]
fn a_service_is_had_by_each_authentication_and_keeps_its_key() {
    for (auth, password) in [(Auth::Nothing, None), (Auth::SafeCookie, None), (Auth::Password, Some("a \"word\\"))] {
        let (setting, runtime) = (Setting::new(), runtime());
        let (tell, mut told) = mpsc::channel(8);
        let options = setting.options(password);
        runtime.spawn(run(options.clone(), tell));
        for key in ["NEW:ED25519-V3", KEY] {
            let (end, ended) = std::sync::mpsc::channel();
            std::thread::scope(|scope| {
                let daemon = scope.spawn(|| daemon(&setting.listener, auth, &setting.cookie(), ended));
                match next(&mut told, &runtime) {
                    Told::OnionProxy { proxy, dial: true } => assert_eq!(proxy.to_string(), "127.0.0.1:9150"),
                    _ => panic!("{auth:?}: expected the daemon's proxy first"),
                }
                match next(&mut told, &runtime) {
                    Told::Own { addr, how: Some(How::Given) } => {
                        assert_eq!(addr.to_string(), format!("{SERVICE}.onion:8333"))
                    }
                    _ => panic!("{auth:?}: expected an address"),
                }
                // The daemon goes away, and the address with it; then it is there again.
                end.send(()).unwrap();
                let commands = daemon.join().unwrap();
                let last = commands.last().unwrap();
                assert_eq!(*last, format!("ADD_ONION {key} Port=8333,127.0.0.1:8334"), "{auth:?}");
                assert!(matches!(next(&mut told, &runtime), Told::Own { how: None, .. }), "{auth:?}");
            });
            assert_eq!(std::fs::read_to_string(&options.key_file).unwrap(), KEY);
            let mode = std::fs::metadata(&options.key_file).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "others may read the key");
        }
    }
}

#[test]
fn a_daemon_that_does_not_know_its_cookie_is_told_nothing() {
    let (setting, runtime) = (Setting::new(), runtime());
    let (tell, _told) = mpsc::channel(8);
    let (_end, ended) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let daemon = scope.spawn(|| daemon(&setting.listener, Auth::Liar, &setting.cookie(), ended));
        let mut service = None;
        let error = runtime.block_on(session(&setting.options(None), &tell, &mut service)).unwrap_err();
        assert_eq!(error.to_string(), "the daemon does not know its own cookie");
        assert!(!daemon.join().unwrap().iter().any(|command| command.starts_with("AUTHENTICATE")));
        assert_eq!(service, None);
    });
}

#[test]
fn a_daemon_that_says_no_or_nonsense_or_too_much_is_left() {
    let (setting, runtime) = (Setting::new(), runtime());
    let (tell, _told) = mpsc::channel(8);
    let endless = vec![b'x'; MAX_LINE as usize + 10];
    let many = b"250-x\r\n".repeat(MAX_LINES + 1);
    for said in [&b"515 No\r\n"[..], b"nonsense\r\n", b"25\r\n", b"", b"250\xc3\xa9x\r\n", &endless, &many] {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = setting.listener.accept().unwrap();
                let _ = stream.write_all(said);
            });
            let mut service = None;
            let ended = runtime.block_on(session(&setting.options(None), &tell, &mut service));
            assert!(
                ended.is_err() && service.is_none(),
                "after {:?}",
                String::from_utf8_lossy(&said[..said.len().min(20)])
            );
        });
    }
}

#[test]
fn fields_are_read_with_quotes_and_escapes() {
    for (line, expected) in [
        (
            "METHODS=COOKIE,SAFECOOKIE COOKIEFILE=\"/a b/c\"",
            vec![("COOKIEFILE", "/a b/c"), ("METHODS", "COOKIE,SAFECOOKIE")],
        ),
        ("word A=1", vec![("A", "1")]),
        (r#"A="\"\\\n\t\r\101\477\8""#, vec![("A", "\"\\\n\t\rA'78")]),
        ("A=b=c", vec![("A", "b=c")]),
        ("A=\"open", vec![]),
        ("A=\"open\\", vec![]),
        ("", vec![]),
    ] {
        let found = fields(line);
        let found: Vec<(&str, &str)> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(found, expected, "{line}");
    }
}
