//! Kubernetes volumes: all files are swapped at once by renaming the link `..data`.

use super::*;

/// What the kubelet's `AtomicWriter` does to a directory.
struct Volume {
    directory: PathBuf,
    version: u64,
}

impl Volume {
    fn new(directory: PathBuf, files: &[(&str, &str)]) -> Self {
        fs::create_dir_all(&directory).unwrap();
        let mut volume = Self {
            directory,
            version: 0,
        };
        volume.swap(files);
        for (name, _) in files {
            symlink(Path::new("..data").join(name), volume.path(name)).unwrap();
        }
        volume
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn swap(&mut self, files: &[(&str, &str)]) {
        let old = fs::read_link(self.path("..data")).ok();
        self.version += 1;
        let new = format!("..2026_11_21_13_00_00.{}", self.version);
        fs::create_dir(self.path(&new)).unwrap();
        for (name, content) in files {
            fs::write(self.path(&new).join(name), content).unwrap();
        }
        symlink(&new, self.path("..data_tmp")).unwrap();
        fs::rename(self.path("..data_tmp"), self.path("..data")).unwrap();
        if let Some(old) = old {
            fs::remove_dir_all(self.directory.join(old)).unwrap();
        }
    }
}

#[test]
fn each_swap_is_published_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut volume = Volume::new(directory.path().join("v"), &[("f", "0."), ("g", "0.")]);
    let followed = follow(&volume.path("f"));
    let mut changes = followed.subscribe();
    for n in 1..=5 {
        let content = format!("{n}.");
        volume.swap(&[("f", &content), ("g", &content)]);
        assert_eq!(*changes.wait(DEADLINE).unwrap(), content);
        assert_eq!(followed.generation(), n + 1);
    }
    assert_eq!(followed.status().refusals, 0);
}

#[test]
fn a_link_through_two_other_directories_is_followed_by_every_rotation() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    // app/cert.pem -> (shared/cert.pem -> csi/cert.pem) -> ..data/cert.pem -> ..ts/cert.pem
    let mut csi = Volume::new(at("csi"), &[("cert.pem", "0.")]);
    fs::create_dir(at("shared")).unwrap();
    symlink("../csi/cert.pem", at("shared/cert.pem")).unwrap();
    fs::create_dir(at("app")).unwrap();
    symlink(at("shared/cert.pem"), at("app/cert.pem")).unwrap();

    let followed = follow(&at("app/cert.pem"));
    let mut changes = followed.subscribe();
    for n in 1..=5 {
        csi.swap(&[("cert.pem", &format!("{n}."))]);
        assert_eq!(*changes.wait(DEADLINE).unwrap(), format!("{n}."));
    }

    // The links in the middle may move as well, to where nothing was watched before, and that place changes too.
    let mut other = Volume::new(at("elsewhere/deep"), &[("cert.pem", "other 0.")]);
    symlink("../elsewhere/deep/cert.pem", at("shared/next")).unwrap();
    fs::rename(at("shared/next"), at("shared/cert.pem")).unwrap();
    changes.wait_for("other 0.");
    for n in 1..=3 {
        other.swap(&[("cert.pem", &format!("other {n}."))]);
        changes.wait_for(&format!("other {n}."));
    }
    assert_eq!(followed.status().refusals, 0);
}

#[test]
fn a_link_above_the_files_is_followed() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for (name, content) in [("b-1", "1."), ("b-2", "2.")] {
        fs::create_dir_all(at(name).join("c/d")).unwrap();
        fs::write(at(name).join("c/d/f"), content).unwrap();
    }
    symlink("b-1", at("b")).unwrap();
    let followed = follow(&at("b/c/d/f"));
    let mut changes = followed.subscribe();
    symlink("b-2", at("next")).unwrap();
    fs::rename(at("next"), at("b")).unwrap();
    changes.wait_for("2.");
    fs::write(at("b-2/c/d/f"), "3.").unwrap();
    changes.wait_for("3.");
}

#[test]
fn a_dangling_link_is_a_missing_file_until_its_target_comes() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    symlink("later/f", at("f")).unwrap();
    let followed = follow_later(&at("f"));
    let mut changes = followed.subscribe();
    let refusal = followed.status().last_refusal.clone().unwrap();
    assert!(matches!(
        *refusal.error,
        FollowError::Read(ReadError::Missing { .. })
    ));
    fs::create_dir(at("later")).unwrap();
    fs::write(at("later/f"), "1.").unwrap();
    changes.wait_for("1.");
}

#[test]
fn certificate_and_key_are_never_read_from_two_sides_of_a_swap() {
    let directory = tempfile::tempdir().unwrap();
    let mut volume = Volume::new(directory.path().join("v"), &[("cert", "0"), ("key", "0")]);
    let (cert, key) = (volume.path("cert"), volume.path("key"));
    let set = FileSet::new().required(&cert).required(&key);
    let end = AtomicBool::new(false);
    let mut reads = 0;

    thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1.. {
                let content = format!("{n}");
                volume.swap(&[("cert", &content), ("key", &content)]);
                if end.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let start = Instant::now();
        while reads < 300 && start.elapsed() < DEADLINE {
            // Swaps may be too quick to be read at all, but not to be read wrongly.
            if let Ok(files) = set.read() {
                reads += 1;
                assert_eq!(files.get(&cert), files.get(&key));
            }
        }
        end.store(true, Ordering::Relaxed);
    });
    assert_eq!(reads, 300);
}

#[test]
fn certificate_and_key_are_never_published_mixed() {
    let directory = tempfile::tempdir().unwrap();
    let mut volume = Volume::new(directory.path().join("v"), &[("cert", "0"), ("key", "0")]);
    let (cert, key) = (volume.path("cert"), volume.path("key"));
    let set = FileSet::new().required(&cert).required(&key);
    let quick = options()
        .debounce(Duration::from_millis(1))
        .max_debounce(Duration::from_millis(1));
    // Accepts whatever it is given: that it belongs together is not the parser's merit here.
    let followed = FollowedFiles::start(set, quick, move |files, _| {
        let bytes = |path| files.require(path).map(<[u8]>::to_vec);
        Ok::<_, ReadError>((bytes(&cert)?, bytes(&key)?))
    })
    .unwrap();
    let mut changes = followed.subscribe();

    let last = 1000;
    thread::scope(|scope| {
        scope.spawn(move || {
            for n in 1..=last {
                let content = n.to_string();
                volume.swap(&[("cert", &content), ("key", &content)]);
            }
        });
        loop {
            let pair = changes.wait(DEADLINE).expect("the last swap is seen");
            assert_eq!(pair.0, pair.1);
            if pair.0 == last.to_string().as_bytes() {
                break;
            }
        }
    });
}
