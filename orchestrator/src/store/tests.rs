use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::apiserver::ApiError;
use crate::small_disk::SmallDisk;

fn store() -> LocalStore {
    LocalStore::in_memory(Limits::default()).unwrap()
}

/// The store of a file, made if there is none.
fn open(path: &Path) -> Result<LocalStore, OpenError> {
    let file = match StoreFile::open(path, None)? {
        Some(file) => file,
        None => StoreFile::create(path, "c", None)?,
    };
    file.start("c", Limits::default())
}

fn text(value: &str) -> Bytes {
    Bytes::copy_from_slice(value.as_bytes())
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future)
        .await
        .expect("in time")
}

#[tokio::test]
async fn compare_and_swap() {
    let s = store();
    let first = s.put("/a", text("1"), Compare::Absent).await.unwrap();
    assert!(matches!(
        s.put("/a", text("2"), Compare::Absent).await,
        Err(StoreError::Conflict { found: Some(_), .. })
    ));
    let second = s.put("/a", text("2"), Compare::At(first.revision)).await.unwrap();
    assert!(matches!(
        s.put("/a", text("3"), Compare::At(first.revision)).await,
        Err(StoreError::Conflict { .. })
    ));
    let v = s.get("/a").await.unwrap().unwrap();
    assert_eq!(
        (v.version, v.mod_revision, v.create_revision),
        (2, second.revision, first.revision)
    );
    assert_eq!(
        s.get_at("/a", first.revision).await.unwrap().unwrap().value,
        text("1")
    );
    s.delete("/a", Compare::Exists).await.unwrap();
    assert_eq!(s.get("/a").await.unwrap(), None);
    assert!(matches!(
        s.delete("/a", Compare::Exists).await,
        Err(StoreError::Conflict { found: None, .. })
    ));
}

#[tokio::test]
async fn transaction_is_all_or_nothing() {
    let s = store();
    let txn = Txn::default()
        .when("/b", Compare::Exists)
        .put("/a", text("1"))
        .put("/b", text("2"));
    assert!(s.txn(txn).await.is_err());
    assert_eq!(s.get("/a").await.unwrap(), None);
    let commit = s
        .txn(Txn::default().put("/a", text("1")).put("/b", text("2")))
        .await
        .unwrap();
    assert!(
        commit
            .after
            .iter()
            .flatten()
            .all(|v| v.mod_revision == commit.revision)
    );
    let twice = Txn::default().put("/a", text("1")).delete("/a");
    assert!(matches!(s.txn(twice).await, Err(StoreError::Twice { .. })));
}

#[test]
fn a_file_says_whose_it_is_and_a_newer_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    assert!(StoreFile::open(&path, None).unwrap().is_none());
    std::fs::write(&path, "").unwrap();
    assert!(
        StoreFile::open(&path, None).unwrap().is_none(),
        "an empty file is none"
    );
    drop(StoreFile::create(&path, "mine", None).unwrap());
    let found = StoreFile::open(&path, None).unwrap().unwrap();
    assert_eq!(found.cluster(), Some("mine"));
    drop(found);
    let db = redb::Database::open(&path).unwrap();
    let write = db.begin_write().unwrap();
    let meta = redb::TableDefinition::<&str, u64>::new("meta");
    write.open_table(meta).unwrap().insert("format", 99).unwrap();
    write.commit().unwrap();
    drop(db);
    let error = StoreFile::open(&path, None).err().unwrap();
    assert!(matches!(error, OpenError::Newer { format: 99, .. }));
    assert!(
        error.to_string().contains("start the version that wrote it"),
        "{error}"
    );
}

#[tokio::test]
async fn a_full_disk_stops_others_and_not_the_store() {
    let Some(disk) = SmallDisk::mount("24m") else {
        return;
    };
    let path = disk.path().join("store.redb");
    let s = open(&path).unwrap();
    disk.fill();
    for n in 0..1000 {
        let value = Bytes::from(vec![n as u8; 2000]);
        s.put(&format!("/k/{}", n % 300), value, Compare::Any)
            .await
            .unwrap();
    }
    drop(s);
    let s = soon(async {
        loop {
            match open(&path) {
                Ok(s) => return s,
                Err(OpenError::InUse(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(error) => panic!("on a full disk: {error:?}"),
            }
        }
    })
    .await;
    assert_eq!(s.list(Range::default()).await.unwrap().items.len(), 300);
    s.put("/k/0", text("again"), Compare::Exists).await.unwrap();
}

/// Once even its reserve is used up, writes fail; when there is room again they do not.
/// Once nobody has it any more.
async fn reopened(path: &Path) -> LocalStore {
    let opened = async {
        loop {
            match open(path) {
                Ok(s) => return s,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    soon(opened).await
}

#[tokio::test]
async fn a_store_that_had_no_room_goes_on_when_it_has() {
    let Some(disk) = SmallDisk::mount("20m") else {
        return;
    };
    let s = open(&disk.path().join("store.redb")).unwrap();
    disk.fill();
    let big = |n: u32| (format!("/big/{n}"), Bytes::from(vec![7; 1 << 20]));
    let mut written = 0;
    loop {
        let (key, value) = big(written);
        match s.put(&key, value, Compare::Any).await {
            Ok(_) => written += 1,
            Err(StoreError::Disk(_)) => break,
            Err(error) => panic!("{error}"),
        }
    }
    std::fs::remove_file(disk.path().join("filler")).unwrap();
    let small = s.put("/small", text("x"), Compare::Any).await.unwrap();
    drop(s);
    let path = disk.path().join("store.redb");
    let s = reopened(&path).await;
    let found = s.list(Range::default()).await.unwrap();
    assert_eq!(
        (found.items.len(), found.revision),
        (written as usize + 1, small.revision)
    );
}

#[tokio::test]
async fn what_is_to_be_encrypted_is_never_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("store.redb"), dir.path().join("copy.redb"));
    let seal = |key: u8| std::sync::Arc::new(Seal::new(&[key; KEY_BYTES], vec!["/secrets/".to_owned()]));
    let file = StoreFile::create(&path, "c", Some(seal(1))).unwrap();
    let s = file.start("c", Limits::default()).unwrap();
    s.put("/secrets/a", text("top-secret-value"), Compare::Any)
        .await
        .unwrap();
    s.put("/plain/a", text("not-at-all-secret"), Compare::Any)
        .await
        .unwrap();
    s.snapshot(&copy).await.unwrap();
    for file in [&path, &copy] {
        let bytes = std::fs::read(file).unwrap();
        let holds = |text: &str| bytes.windows(text.len()).any(|w| w == text.as_bytes());
        assert!(holds("not-at-all-secret") && !holds("top-secret-value"));
    }
    let opened = |seal| StoreFile::open(&copy, seal);
    let error = opened(None).err().unwrap();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    assert!(opened(Some(seal(2))).is_err(), "another's key");
    let s = opened(Some(seal(1)))
        .unwrap()
        .unwrap()
        .start("c", Limits::default())
        .unwrap();
    assert_eq!(
        s.get("/secrets/a").await.unwrap().unwrap().value,
        "top-secret-value"
    );
}

/// As one whose bytes are damaged: whoever reads it sets it apart.
#[tokio::test]
async fn one_value_that_cannot_be_decrypted_refuses_no_store() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("store.redb"), dir.path().join("copy.redb"));
    let seal = |key: u8| std::sync::Arc::new(Seal::new(&[key; KEY_BYTES], vec!["/secrets/".to_owned()]));
    let file = StoreFile::create(&path, "c", Some(seal(1))).unwrap();
    let s = file.start("c", Limits::default()).unwrap();
    s.put("/secrets/a", text("good"), Compare::Any).await.unwrap();
    s.snapshot(&copy).await.unwrap();
    let file = StoreFile::open(&copy, Some(seal(1))).unwrap().unwrap();
    let s = file.with_seal(seal(2)).start("c", Limits::default()).unwrap();
    s.put("/secrets/b", text("bad"), Compare::Any).await.unwrap();
    let again = dir.path().join("again.redb");
    drop(s);
    let file = soon(async {
        loop {
            match StoreFile::open(&copy, Some(seal(1))) {
                Ok(file) => return file.unwrap(),
                Err(OpenError::InUse(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(error) => panic!("{error:?}"),
            }
        }
    });
    let s = file.await.start("c", Limits::default()).unwrap();
    assert_eq!(s.get("/secrets/a").await.unwrap().unwrap().value, "good");
    assert_ne!(s.get("/secrets/b").await.unwrap().unwrap().value, "bad");
    s.snapshot(&again).await.unwrap();
    assert!(StoreFile::open(&again, Some(seal(1))).is_ok());
    assert!(StoreFile::open(&again, Some(seal(3))).is_err(), "nothing opens");
}

#[tokio::test]
async fn plain_values_of_an_earlier_version_are_encrypted_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("store.redb"), dir.path().join("copy.redb"));
    let s = open(&path).unwrap();
    s.put("/secrets/a", text("top-secret-value"), Compare::Any)
        .await
        .unwrap();
    s.snapshot(&copy).await.unwrap();
    let seal = std::sync::Arc::new(Seal::new(&[1; KEY_BYTES], vec!["/secrets/".to_owned()]));
    let file = StoreFile::open(&copy, None)
        .unwrap()
        .unwrap()
        .with_seal(seal.clone());
    drop(file.start("c", Limits::default()).unwrap());
    let reopened = soon(async {
        loop {
            match StoreFile::open(&copy, Some(seal.clone())) {
                Ok(file) => return file.unwrap(),
                Err(OpenError::InUse(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(error) => panic!("{error:?}"),
            }
        }
    });
    drop(reopened.await);
    assert!(StoreFile::open(&copy, None).is_err(), "it is encrypted");
}

#[tokio::test]
async fn a_snapshot_for_which_there_is_no_space_leaves_nothing_and_says_so() {
    let Some(disk) = SmallDisk::mount("8m") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let s = open(&dir.path().join("store.redb")).unwrap();
    disk.fill();
    let copy = disk.path().join("snapshot.redb");
    let error = ApiError::from(s.snapshot(&copy).await.unwrap_err());
    assert!(
        error.status().to_string().contains("No space left on device"),
        "{error:?}"
    );
    assert!(!copy.exists());
}

#[tokio::test]
async fn a_snapshot_is_the_store_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let s = open(&dir.path().join("store.redb")).unwrap();
    s.put("/a", text("1"), Compare::Any).await.unwrap();
    s.put("/a", text("2"), Compare::Any).await.unwrap();
    s.put("/b", text("1"), Compare::Any).await.unwrap();
    s.delete("/b", Compare::Any).await.unwrap();
    let copy = dir.path().join("copy.redb");
    s.snapshot(&copy).await.unwrap();
    let before = s.list(Range::default()).await.unwrap();
    s.put("/a", text("3"), Compare::Any).await.unwrap();
    let s = open(&copy).unwrap();
    assert_eq!(s.list(Range::default()).await.unwrap(), before);
    let next = s
        .put("/a", text("4"), Compare::At(before.items[0].mod_revision))
        .await
        .unwrap();
    assert_eq!(next.revision.0, before.revision.0 + 1);
}

#[test]
fn a_damaged_file_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    drop(StoreFile::create(&path, "mine", None).unwrap());
    let good = std::fs::read(&path).unwrap();
    let half = good[..good.len() / 2].to_vec();
    let random: Vec<u8> = (0..good.len()).map(|i| ((i * 7919) >> 3) as u8).collect();
    for (what, bytes) in [("half", half), ("random", random), ("text", b"hello".to_vec())] {
        std::fs::write(&path, &bytes).unwrap();
        let error = StoreFile::open(&path, None)
            .err()
            .unwrap_or_else(|| panic!("{what} was taken"));
        assert!(matches!(error, OpenError::Damaged { .. }), "{what}: {error:?}");
        assert!(error.to_string().contains("gantry restore"), "{error}");
        assert!(std::fs::read(&path).unwrap() == bytes, "{what}: it was changed");
    }
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    let error = StoreFile::open(&path, None).err().expect("a directory was taken");
    assert!(error.to_string().contains("gantry restore"), "{error}");
}

#[tokio::test]
async fn survives_a_restart_with_its_history() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let s = open(&path).unwrap();
    let first = s.put("/a", text("1"), Compare::Any).await.unwrap();
    let writes = (0..100).map(|i| {
        let s = s.clone();
        async move {
            s.put(&format!("/n/{i:03}"), text("x"), Compare::Absent)
                .await
                .unwrap()
        }
    });
    futures::future::join_all(writes).await;
    s.delete("/a", Compare::Any).await.unwrap();
    s.put("/a", text("2"), Compare::Any).await.unwrap();
    let before = s.list(Range::default()).await.unwrap();
    assert!(matches!(open(&path), Err(OpenError::InUse(_))), "one at a time");
    drop(s);
    let s = reopened(&path).await;
    assert_eq!(s.list(Range::default()).await.unwrap(), before);
    assert_eq!(
        s.get_at("/a", first.revision).await.unwrap().unwrap().value,
        text("1")
    );
    let batch = soon(s.watch("/a", first.revision).unwrap().next()).await.unwrap();
    assert_eq!(batch.events.len(), 2);
    assert!(batch.events[0].after.is_none() && batch.events[0].before.is_some());
    s.compact(s.revision()).await.unwrap();
    assert_eq!(s.list(Range::default()).await.unwrap(), before);
}

#[tokio::test]
async fn a_slow_watcher_blocks_nobody_and_is_told() {
    let s = LocalStore::in_memory(Limits {
        events: 100,
        bytes: 1 << 20,
    })
    .unwrap();
    let mut slow = s.watch("/", s.revision()).unwrap();
    let mut fast = s.watch("/", s.revision()).unwrap();
    let mut seen = 0;
    for i in 0..500 {
        s.put("/k", text(&i.to_string()), Compare::Any).await.unwrap();
        let batch = soon(fast.next()).await.unwrap();
        seen += batch.events.len();
    }
    assert_eq!(seen, 500);
    assert!(matches!(
        soon(slow.next()).await,
        Err(StoreError::Compacted { .. })
    ));
}

/// How many changes, and how many bytes of values, the history has.
async fn history(s: &LocalStore) -> (usize, usize) {
    let (mut count, mut bytes) = (0, 0);
    let mut watch = s.watch("/", s.compacted()).unwrap();
    loop {
        let batch = soon(watch.next()).await.unwrap();
        count += batch.events.len();
        let values = batch.events.iter().filter_map(|event| event.after.as_ref());
        bytes += values.map(|version| version.value.len()).sum::<usize>();
        if batch.through == s.revision() {
            return (count, bytes);
        }
    }
}

#[tokio::test]
async fn the_history_is_trimmed_with_the_writes_that_make_it_too_long() {
    let place = tempfile::tempdir().unwrap();
    let limits = Limits {
        events: 500,
        bytes: 1 << 20,
    };
    let file = StoreFile::create(&place.path().join("store.redb"), "c", None).unwrap();
    let s = file.start("c", limits).unwrap();
    for i in 0..500 {
        s.put(&format!("/many/{i}"), text("x"), Compare::Any)
            .await
            .unwrap();
    }
    assert_eq!(
        (history(&s).await.0, s.compacted()),
        (500, Revision(1)),
        "as long as it may be"
    );
    // A transaction that is as long goes in at once; what it makes too much goes with those after it, a part with each.
    let many = (0..500).fold(Txn::default(), |txn, i| txn.put(&format!("/many/{i}"), text("y")));
    s.txn(many).await.unwrap();
    let mut before = history(&s).await.0;
    assert!(before > 500);
    for i in 0..20 {
        s.put("/k", text(&i.to_string()), Compare::Any).await.unwrap();
        let now = history(&s).await.0;
        assert!(now <= before.max(501), "{before}, then {now}");
        before = now;
    }
    assert!(before <= 501, "{before} are left");
    assert_eq!(s.list(Range::prefix("/many/")).await.unwrap().items.len(), 500);
}

#[tokio::test]
async fn large_values_push_out_as_many_bytes_as_they_bring() {
    let s = LocalStore::in_memory(Limits {
        events: 100_000,
        bytes: 1 << 20,
    })
    .unwrap();
    for i in 0..10_000 {
        s.put(&format!("/small/{}", i % 100), text("x"), Compare::Any)
            .await
            .unwrap();
    }
    let large = Bytes::from(vec![7; 200 << 10]);
    for _ in 0..50 {
        s.put("/large", large.clone(), Compare::Any).await.unwrap();
        let (_, bytes) = history(&s).await;
        assert!(bytes <= (1 << 20) + large.len(), "{bytes} bytes");
    }
}

#[tokio::test]
async fn what_was_forgotten_while_the_disk_was_full_does_not_come_back() {
    let Some(disk) = SmallDisk::mount("20m") else {
        return;
    };
    let path = disk.path().join("store.redb");
    let limits = Limits {
        events: 64,
        bytes: 64 << 20,
    };
    let file = StoreFile::create(&path, "c", None).unwrap();
    let s = file.start("c", limits).unwrap();
    for value in ["1", "2"] {
        s.put("/gone", text(value), Compare::Any).await.unwrap();
    }
    disk.fill();
    let big = async |i: usize| {
        let value = Bytes::from(vec![7; 1 << 20]);
        s.put(&format!("/big/{i}"), value, Compare::Any).await.is_ok()
    };
    let mut taken = 0;
    while big(taken).await {
        taken += 1;
    }
    // What is small still finds room. One more than the history may have: the next write is to forget the first of all.
    for i in 2 + taken..65 {
        s.put(&format!("/small/{i}"), text("x"), Compare::Any)
            .await
            .unwrap();
    }
    let before = s.compacted();
    assert!(!big(taken).await, "the disk has room again");
    assert!(s.compacted() > before, "nothing was forgotten");
    std::fs::remove_file(disk.path().join("filler")).unwrap();
    s.delete("/gone", Compare::Any).await.unwrap();
    for i in 0..100 {
        s.put("/k", text(&i.to_string()), Compare::Any).await.unwrap();
    }
    let before = s.list(Range::default()).await.unwrap();
    drop(s);
    let s = reopened(&path).await;
    assert_eq!(s.list(Range::default()).await.unwrap(), before);
    assert!(s.get("/gone").await.unwrap().is_none(), "it is back");
}

#[tokio::test]
async fn lists_in_pages_of_one_revision() {
    let s = store();
    for i in 0..10 {
        s.put(&format!("/p/{i}"), text("x"), Compare::Any).await.unwrap();
    }
    s.put("/q", text("x"), Compare::Any).await.unwrap();
    let first = s
        .list(Range {
            limit: 4,
            ..Range::prefix("/p/")
        })
        .await
        .unwrap();
    assert_eq!((first.items.len(), first.remaining), (4, 6));
    s.delete("/p/7", Compare::Any).await.unwrap();
    let range = Range {
        at: Some(first.revision),
        after: Some(first.items[3].key.to_string()),
        ..Range::prefix("/p/")
    };
    assert_eq!(s.list(range).await.unwrap().items.len(), 6);
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8),
    PutAt(u8, u8, u64),
    Create(u8),
    Delete(u8),
    Compact(u64),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..6u8, any::<u8>()).prop_map(|(k, v)| Step::Put(k, v)),
        2 => (0..6u8, any::<u8>(), 1..30u64).prop_map(|(k, v, r)| Step::PutAt(k, v, r)),
        1 => (0..6u8).prop_map(Step::Create),
        3 => (0..6u8).prop_map(Step::Delete),
        1 => (1..30u64).prop_map(Step::Compact),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..40)
}

type Model = BTreeMap<String, (u8, u64)>;

async fn check(s: &LocalStore, states: &BTreeMap<u64, Model>, compacted: u64) {
    for (revision, model) in states {
        let listing = s
            .list(Range {
                at: Some(Revision(*revision)),
                ..Range::default()
            })
            .await;
        if *revision < compacted {
            assert!(matches!(listing, Err(StoreError::Compacted { .. })));
            continue;
        }
        let seen: Model = listing
            .unwrap()
            .items
            .iter()
            .map(|v| (v.key.to_string(), (v.value[0], v.mod_revision.0)))
            .collect();
        assert_eq!(&seen, model, "at revision {revision}");
    }
    // Replaying the watch from the oldest state gives the newest.
    let (_, newest) = states.last_key_value().unwrap();
    let mut replayed = states[&compacted.max(1)].clone();
    let mut watch = s.watch("/", Revision(compacted.max(1))).unwrap();
    let mut through = compacted.max(1);
    while through < s.revision().0 {
        let batch = soon(watch.next()).await.unwrap();
        through = batch.through.0;
        for event in batch.events {
            let before = replayed.get(&*event.key).map(|(_, r)| *r);
            assert_eq!(before, event.before.as_ref().map(|v| v.mod_revision.0));
            match &event.after {
                Some(v) => replayed.insert(event.key.to_string(), (v.value[0], event.revision.0)),
                None => replayed.remove(&*event.key),
            };
        }
    }
    assert_eq!(&replayed, newest);
}

async fn run(steps: Vec<Step>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let mut s = open(&path).unwrap();
    let mut model = Model::new();
    let mut states = BTreeMap::from([(1, model.clone())]);
    let mut compacted = 0;
    for step in steps {
        let key = |k: u8| format!("/{k}");
        let (k, done) = match &step {
            Step::Put(k, v) => (*k, s.put(&key(*k), Bytes::from(vec![*v]), Compare::Any).await),
            Step::PutAt(k, v, r) => (
                *k,
                s.put(&key(*k), Bytes::from(vec![*v]), Compare::At(Revision(*r)))
                    .await,
            ),
            Step::Create(k) => (*k, s.put(&key(*k), Bytes::from(vec![0]), Compare::Absent).await),
            Step::Delete(k) => (*k, s.delete(&key(*k), Compare::Any).await),
            Step::Compact(r) => {
                let newest = s.revision().0;
                let done = s.compact(Revision(*r)).await.is_ok();
                assert_eq!(done, *r >= compacted.max(1) && *r <= newest);
                compacted = if done { *r } else { compacted };
                continue;
            }
            Step::Reopen => {
                drop(s);
                s = soon(async {
                    loop {
                        match open(&path) {
                            Ok(s) => return s,
                            Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
                        }
                    }
                })
                .await;
                continue;
            }
        };
        let held = model.get(&key(k)).copied();
        match (&step, &done) {
            (Step::PutAt(_, _, r), done) => assert_eq!(done.is_ok(), held.is_some_and(|(_, at)| at == *r)),
            (Step::Create(_), done) => assert_eq!(done.is_ok(), held.is_none()),
            (_, done) => assert!(done.is_ok()),
        }
        if let Ok(commit) = done {
            match commit.after[0].as_ref() {
                Some(v) => model.insert(key(k), (v.value[0], commit.revision.0)),
                None => model.remove(&key(k)),
            };
            states.insert(commit.revision.0, model.clone());
        }
    }
    check(&s, &states, compacted).await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn behaves_as_a_map_with_a_past(steps in steps()) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(steps));
    }
}
