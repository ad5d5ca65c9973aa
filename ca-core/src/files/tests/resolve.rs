//! Following links by hand, compared with the system's way.

use proptest::prelude::*;

use super::super::resolve::{Lookups, Resolver};
use super::*;

fn resolve(path: &Path) -> (std::io::Result<PathBuf>, Lookups) {
    let mut resolver = Resolver::default();
    let resolved = resolver.resolve(path);
    (resolved, resolver.into_lookups())
}

#[test]
fn every_directory_on_the_way_is_known() {
    let directory = TempDir::new().unwrap();
    let base = directory.path().canonicalize().unwrap();
    let at = |name: &str| base.join(name);
    fs::create_dir_all(at("csi/..ts")).unwrap();
    fs::create_dir_all(at("app")).unwrap();
    fs::write(at("csi/..ts/cert.pem"), "").unwrap();
    symlink("..ts", at("csi/..data")).unwrap();
    symlink("..data/cert.pem", at("csi/cert.pem")).unwrap();
    symlink(at("csi/cert.pem"), at("app/cert.pem")).unwrap();

    let (resolved, lookups) = resolve(&at("app/cert.pem"));
    assert_eq!(resolved.unwrap(), at("csi/..ts/cert.pem"));
    for name in [
        "app",
        "app/cert.pem",
        "csi",
        "csi/cert.pem",
        "csi/..data",
        "csi/..ts",
        "csi/..ts/cert.pem",
    ] {
        assert!(lookups.concern(&at(name)), "{name}");
    }
    for name in ["app/key.pem", "csi/..data_tmp", "other"] {
        assert!(!lookups.concern(&at(name)), "{name}");
    }
    let directories: Vec<_> = lookups
        .directories()
        .filter(|d| d.starts_with(&base))
        .collect();
    assert_eq!(directories, [at(""), at("app"), at("csi"), at("csi/..ts")]);
}

#[test]
fn a_link_that_is_replaced_leads_all_paths_to_the_same_side() {
    let directory = TempDir::new().unwrap();
    let base = directory.path().canonicalize().unwrap();
    let at = |name: &str| base.join(name);
    for side in ["old", "new"] {
        fs::create_dir(at(side)).unwrap();
        fs::write(at(side).join("cert"), "").unwrap();
        fs::write(at(side).join("key"), "").unwrap();
    }
    symlink("old", at("data")).unwrap();
    let mut resolver = Resolver::default();
    assert_eq!(resolver.resolve(&at("data/cert")).unwrap(), at("old/cert"));
    symlink("new", at("next")).unwrap();
    fs::rename(at("next"), at("data")).unwrap();
    assert_eq!(resolver.resolve(&at("data/key")).unwrap(), at("old/key"));
}

#[test]
fn links_in_a_circle_are_an_error() {
    let directory = TempDir::new().unwrap();
    let (a, b) = (directory.path().join("a"), directory.path().join("b"));
    symlink(&a, &b).unwrap();
    symlink(&b, &a).unwrap();
    let error = resolve(&a).0.unwrap_err();
    assert_eq!(error.to_string(), "too many levels of symbolic links");
    assert!(matches!(
        FileSet::new().optional(&a).read(),
        Err(ReadError::Io { .. })
    ));
}

/// A directory, a file or a link, among few names, so that links often lead somewhere.
#[derive(Clone, Debug)]
enum Entry {
    Directory(String),
    File(String),
    Link(String, String),
}

fn path() -> impl Strategy<Value = String> {
    let name = prop_oneof![4 => "[ab]", 1 => Just("..".to_owned()), 1 => Just(".".to_owned())];
    prop::collection::vec(name, 1..4).prop_map(|names| names.join("/"))
}

fn entry() -> impl Strategy<Value = Entry> {
    prop_oneof![
        path().prop_map(Entry::Directory),
        path().prop_map(Entry::File),
        (path(), path()).prop_map(|(at, to)| Entry::Link(at, to)),
    ]
}

proptest! {
    #[test]
    fn resolves_as_the_system_does(entries in prop::collection::vec(entry(), 0..12), wanted in path()) {
        let directory = TempDir::new().unwrap();
        // Deep enough that `..` stays inside.
        let base = directory.path().canonicalize().unwrap().join("1/2/3/4/5/6/7/8/9/10/11/12");
        fs::create_dir_all(&base).unwrap();
        for entry in entries {
            // Some have no place: that is fine.
            match entry {
                Entry::Directory(at) => drop(fs::create_dir(base.join(at))),
                Entry::File(at) => drop(fs::File::create_new(base.join(at))),
                Entry::Link(at, to) => drop(symlink(to, base.join(at))),
            }
        }
        let path = base.join(wanted);
        let (resolved, lookups) = resolve(&path);
        match path.canonicalize() {
            Ok(expected) => {
                prop_assert!(lookups.concern(&expected) || base.starts_with(&expected));
                prop_assert_eq!(resolved.unwrap(), expected);
            }
            // By hand, `file/..` leads somewhere. The system then refuses to open it, or it is not asked.
            Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {}
            Err(_) => prop_assert!(resolved.is_err()),
        }
        for directory in lookups.directories() {
            prop_assert_eq!(directory.canonicalize().unwrap_or_default(), directory);
        }
    }
}
