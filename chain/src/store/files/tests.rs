//! Appending, reading, crashing: what is durable reads back, what is torn is gone.

use super::*;

const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];

fn open(folder: &Path, known: &[(u32, Ends)]) -> Files {
    Files::open(folder, MAGIC, &known.iter().copied().collect(), 1000).expect("the folder opens")
}

fn block(number: u8, length: usize) -> Vec<u8> {
    vec![number; length]
}

#[test]
fn blocks_and_undo_read_back_and_lie_in_core_framing() {
    let folder = tempfile::tempdir().unwrap();
    let files = open(folder.path(), &[]);
    let first = files.append_block(&block(1, 300)).unwrap();
    let second = files.append_block(&block(2, 400)).unwrap();
    let third = files.append_block(&block(3, 300)).unwrap();
    assert_eq!(first, FilePos { file: 0, offset: 8 });
    assert_eq!(second, FilePos { file: 0, offset: 316 });
    assert_eq!(third, FilePos { file: 1, offset: 8 }, "724 + 308 bytes pass the limit of 1000");
    // Undo of an earlier pair comes late, and goes to its own file.
    let undo_third = files.append_undo(1, b"third").unwrap();
    let undo_first = files.append_undo(0, b"first").unwrap();
    let undo_second = files.append_undo(0, b"").unwrap();
    assert_eq!(undo_first.file, 0);
    for (pos, number, length) in [(first, 1, 300), (second, 2, 400), (third, 3, 300)] {
        assert_eq!(files.read_block(pos).unwrap(), block(number, length), "block at {pos:?}");
    }
    for (pos, undo) in [(undo_first, &b"first"[..]), (undo_second, b""), (undo_third, b"third")] {
        assert_eq!(files.read_undo(pos).unwrap(), undo, "undo at {pos:?}");
    }
    let raw = fs::read(folder.path().join("blk00000.dat")).unwrap();
    let framed = |number, length: u32| [&MAGIC[..], &length.to_le_bytes(), &block(number, length as usize)].concat();
    assert_eq!(raw, [framed(1, 300), framed(2, 400)].concat());
    assert_eq!(files.list(), [(0, 716 + 45 + 40), (1, 308 + 45)]);
}

#[test]
fn a_block_longer_than_a_file_gets_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let files = open(folder.path(), &[]);
    assert_eq!(files.append_block(&block(1, 5000)).unwrap(), FilePos { file: 0, offset: 8 });
    assert_eq!(files.append_block(&block(2, 5000)).unwrap(), FilePos { file: 1, offset: 8 });
}

#[test]
fn what_was_appended_after_the_recorded_ends_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let files = open(folder.path(), &[]);
    let kept = files.append_block(&block(1, 300)).unwrap();
    let undo = files.append_undo(0, b"kept").unwrap();
    assert!(!files.is_synced(Some(kept), None));
    files.sync().unwrap();
    assert!(files.is_synced(Some(kept), Some(undo)));
    let ends = files.take_unrecorded();
    assert_eq!(ends, [(0, Ends { blocks: 308, undo: 44 })]);
    assert_eq!(files.take_unrecorded(), []);
    let lost = files.append_block(&block(2, 300)).unwrap();
    files.append_undo(0, b"lost").unwrap();
    assert!(!files.is_synced(Some(lost), None));
    drop(files);

    let files = open(folder.path(), &ends);
    assert_eq!(fs::metadata(folder.path().join("blk00000.dat")).unwrap().len(), 308);
    assert_eq!(fs::metadata(folder.path().join("rev00000.dat")).unwrap().len(), 44);
    assert!(matches!(files.read_block(lost), Err(StoreError::Damaged { .. })));
    assert_eq!(files.read_block(kept).unwrap(), block(1, 300));
    assert_eq!(files.read_undo(undo).unwrap(), b"kept");
    assert_eq!(files.append_block(&block(3, 200)).unwrap(), lost, "the next block takes the place");
    assert_eq!(files.read_block(lost).unwrap(), block(3, 200));
}

#[test]
fn unrecorded_files_keep_their_whole_frames() {
    let folder = tempfile::tempdir().unwrap();
    let files = open(folder.path(), &[]);
    let pos = files.append_block(&block(1, 300)).unwrap();
    let undo = files.append_undo(0, b"undo").unwrap();
    drop(files);
    for (name, whole) in [("blk00000.dat", 308), ("rev00000.dat", 44)] {
        let path = folder.path().join(name);
        let good = fs::read(&path).unwrap();
        // A frame cut short, bytes of no frame, a frame that claims more than there is, preallocated zeros.
        let claim = [&MAGIC[..], &u32::MAX.to_le_bytes()].concat();
        for tail in [&good[..whole - 1], &[1, 2, 3], &claim, &[0; 50]] {
            fs::write(&path, [&good, tail].concat()).unwrap();
            let files = open(folder.path(), &[]);
            assert_eq!(fs::metadata(&path).unwrap().len(), whole as u64, "{name} with a tail of {} bytes", tail.len());
            assert_eq!(files.read_block(pos).unwrap(), block(1, 300));
            assert_eq!(files.read_undo(undo).unwrap(), b"undo");
            assert!(!files.is_synced(Some(pos), None), "nobody knows whether they were ever synced");
            files.sync().unwrap();
            assert!(files.is_synced(Some(pos), Some(undo)));
            assert_eq!(files.take_unrecorded(), [(0, Ends { blocks: 308, undo: 44 })]);
        }
    }
}

#[test]
fn a_damaged_record_names_itself_and_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let files = open(folder.path(), &[]);
    let pos = files.append_block(&block(1, 300)).unwrap();
    let undo = files.append_undo(0, b"some undo").unwrap();
    let sentence = |result: Result<Vec<u8>, StoreError>| result.expect_err("it is damaged").to_string();

    for at in [0, 5, 10, 20, 48] {
        let path = folder.path().join("rev00000.dat");
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&path, bad).unwrap();
        let said = sentence(files.read_undo(undo));
        assert!(said.starts_with("the undo record at byte 8 of "), "byte {at}: {said}");
        assert!(said.ends_with("; start with --reindex"), "byte {at}: {said}");
        fs::write(&path, good).unwrap();
    }
    let beyond = [8 + 300, 9, 0, u32::MAX];
    for offset in beyond {
        assert!(matches!(files.read_block(FilePos { file: 0, offset }), Err(StoreError::Damaged { .. })), "{offset}");
    }
    assert!(sentence(files.read_block(FilePos { file: 9, offset: 8 })).contains("there is no such file"));
    OpenOptions::new().write(true).open(folder.path().join("blk00000.dat")).unwrap().set_len(100).unwrap();
    assert!(sentence(files.read_block(pos)).contains("the file ends before it"));
    drop(files);
    fs::remove_file(folder.path().join("blk00000.dat")).unwrap();
    let files = open(folder.path(), &[(0, Ends { blocks: 308, undo: 49 })]);
    assert!(sentence(files.read_block(pos)).contains("the file is missing"));
}

#[test]
fn the_last_pair_is_never_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let files = open(folder.path(), &[]);
    let first = files.append_block(&block(1, 900)).unwrap();
    files.append_undo(0, b"undo").unwrap();
    files.append_block(&block(2, 900)).unwrap();
    assert!(!files.delete(1).unwrap());
    assert!(!files.delete(7).unwrap());
    assert!(files.delete(0).unwrap());
    assert!(matches!(files.read_block(first), Err(StoreError::Damaged { .. })));
    assert_eq!(files.list(), [(1, 908)]);
    files.sync().unwrap();
    let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["blk00001.dat"]);
}

#[test]
fn reads_run_beside_appends_through_few_handles() {
    let folder = tempfile::tempdir().unwrap();
    let files = open(folder.path(), &[]);
    let all: Vec<_> = (0..60).map(|number| files.append_block(&block(number, 900)).unwrap()).collect();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for (number, pos) in all.iter().enumerate() {
                    assert_eq!(files.read_block(*pos).unwrap(), block(number as u8, 900));
                }
            });
        }
        (60..90).for_each(|number| {
            files.append_block(&block(number, 900)).unwrap();
            files.sync().unwrap();
        });
    });
    assert!(files.state.lock().handles.len() <= MAX_HANDLES);
}

#[test]
fn refusals_of_the_system_are_sentences() {
    let path = Path::new("/d/blk00000.dat");
    for (kind, said) in [
        (io::ErrorKind::StorageFull, "the disk is full: cannot write /d/blk00000.dat; free some space and start again"),
        (io::ErrorKind::PermissionDenied, "no permission to write /d/blk00000.dat; check its owner and mode"),
    ] {
        assert_eq!(failure("write", path, &kind.into()).to_string(), said);
    }
}
