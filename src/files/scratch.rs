//! Names that no other process has, for what lasts only until some work is done, and what becomes of such things when
//! their process is killed.

use std::collections::HashMap;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::error::{Error, Result};
use crate::files::{LOCK, Lock, remedy};

const MARK: &str = ".structtoken-";
const ENDING: &str = ".tmp";
/// Room for the name of what it is for: with the rest it stays below the 255 bytes that disks allow.
const ROOM: usize = 160;
/// What is younger may just be being made, and not be locked yet.
const YOUNG: Duration = Duration::from_secs(20);

/// A hidden name for something unfinished that will be `of`: by the process, a count, and chance for other machines.
pub(super) fn name(of: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let chance = RandomState::new().hash_one(process);
    format!(".{}{MARK}{process}-{count}-{chance:016x}{ENDING}", &of[..of.floor_char_boundary(ROOM)])
}

/// Whether `name` is one of [`name`]'s.
fn ours(name: &str) -> bool {
    let inner = || name.strip_prefix('.')?.strip_suffix(ENDING)?.rsplit_once(MARK);
    let Some((_, tail)) = inner() else { return false };
    let parts: Vec<&str> = tail.split('-').collect();
    let digits = |part: &str, radix| !part.is_empty() && part.chars().all(|c| c.is_digit(radix));
    parts.len() == 3 && digits(parts[0], 10) && digits(parts[1], 10) && parts[2].len() == 16 && digits(parts[2], 16)
}

/// Removes from `folder` what killed processes have left. Of what is written one after the other only the first looks
/// for that, and whatever comes when things that were young then no longer are.
pub(super) fn sweep_at_times(folder: &Path) {
    static SWEPT: LazyLock<Mutex<HashMap<PathBuf, Instant>>> = LazyLock::new(Mutex::default);
    let mut swept = SWEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if swept.get(folder).is_none_or(|last| last.elapsed() > YOUNG) {
        // There may be any number of folders.
        if swept.len() > 1000 {
            swept.retain(|_, last| last.elapsed() <= YOUNG);
        }
        swept.insert(folder.to_owned(), Instant::now());
        drop(swept);
        sweep(folder);
    }
}

/// Removes from `folder` what killed processes have left. What cannot be seen or removed stays: it is hidden, and harms
/// nobody.
pub(crate) fn sweep(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(ours)) {
        let path = entry.path();
        let Ok(found) = path.symlink_metadata() else { continue };
        let age = found.modified().ok().and_then(|time| SystemTime::now().duration_since(time).ok());
        if age.is_none_or(|age| age < YOUNG) {
            continue;
        }
        // Whose lock can be had has lost its process, on whatever machine that was.
        let abandoned = |file: &Path| File::open(file).is_ok_and(|file| file.try_lock().is_ok());
        if found.is_dir() && (abandoned(&path.join(LOCK)) || !path.join(LOCK).exists()) {
            std::fs::remove_dir_all(&path).ok();
        } else if found.is_file() && abandoned(&path) {
            std::fs::remove_file(&path).ok();
        }
    }
}

/// A folder of a name of its own that goes when it is no longer needed.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    #[expect(dead_code, reason = "taken as long as the folder is in use")]
    lock: Lock,
}

impl Scratch {
    /// A new folder in `parent`, for work on what is called `of`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn new(parent: &Path, of: &str) -> Result<Self> {
        sweep_at_times(parent);
        let path = parent.join(name(of));
        let failed = |error: std::io::Error| {
            let hint = remedy(&error);
            Error::file("create", &path, error).with_hint(hint)
        };
        std::fs::create_dir_all(parent).map_err(failed)?;
        std::fs::create_dir(&path).map_err(failed)?;
        let lock = Lock::named(&path, LOCK)?;
        Ok(Self { path, lock })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.path).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_distinct_and_known_again() {
        let long = "größe".repeat(60);
        let (a, b) = (name(&long), name(&long));
        assert!(a != b && a.len() <= 255 && ours(&a) && ours(&b), "{a}");
        assert!(ours(&name("")) && ours(&name("a.structtoken-b.png")));
        for other in
            ["a.png", ".a.png.tmp", ".a.structtoken-1-2.tmp", ".a.structtoken-1-2-xyz.tmp", ".structtoken-.tmp"]
        {
            assert!(!ours(other), "{other}");
        }
    }

    #[test]
    fn what_killed_processes_left_is_swept_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let old = |path: &Path| {
            let file = File::open(path).unwrap();
            file.set_modified(SystemTime::now() - 2 * YOUNG).unwrap();
            file
        };
        let [left, held, young] = ["left", "held", "young"].map(|of| folder.path().join(name(of)));
        let (dir, mine) = (folder.path().join(name("dir")), folder.path().join(".my-own.tmp"));
        for path in [&left, &held, &young, &mine] {
            std::fs::write(path, "half").unwrap();
        }
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("file"), "half").unwrap();
        for path in [&left, &mine, &dir] {
            old(path);
        }
        let holder = old(&held);
        holder.lock().unwrap();
        let scratch = Scratch::new(folder.path(), "in use").unwrap();
        old(scratch.path());
        sweep(folder.path());
        assert_eq!([&left, &held, &young, &mine, &dir].map(|path| path.exists()), [false, true, true, true, false]);
        assert!(scratch.path().exists());
        let path = scratch.path().to_owned();
        drop(scratch);
        assert!(!path.exists());
    }
}
