//! Who is how fast, in rounds in which everyone takes a turn: ours and its floor with each library, and peers.
//! `cargo xtask bench` builds the peers, runs this and keeps what it prints.
//!
//! ```text
//! side_by_side <seconds for each kind of CSR> [<peer>...]
//! ```

use std::cell::RefCell;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use benches::{
    ALL_KINDS, ALL_LIBRARIES, Contestant, Floor, Issuance, Library, Material, Peer, Samples,
    Stopwatch, label, median, median_ratio, minimum, run_rounds,
};
use ca_core::KeyKind;
use time::OffsetDateTime;

#[expect(
    clippy::disallowed_methods,
    reason = "an edge: the roots are to be valid now"
)]
fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let seconds: u32 = arguments
        .next()
        .context("how many seconds for each kind of CSR?")?
        .parse()?;
    let limit = Duration::from_secs(seconds.into());
    let folder = tempfile::tempdir()?;
    let material = Material(folder.path());
    material.make(OffsetDateTime::now_utc())?;
    let peers = arguments
        .map(|program| Peer::start(Path::new(&program), &material).map(RefCell::new))
        .collect::<Result<Vec<_>>>()?;

    let mut comparisons = Vec::new();
    for csr in ALL_KINDS {
        eprintln!("{} CSRs: {seconds} s", label(csr));
        comparisons.push(Comparison::run(&material, &peers, csr, limit)?);
    }
    print_targets(&comparisons);
    print_comparisons(&comparisons, &peers)?;
    eprintln!("the current bundle: {seconds} s");
    print_bundle(&material, limit)
}

/// Everything that was measured with one kind of CSR.
struct Comparison {
    csr: KeyKind,
    ours: Vec<Ours>,
    peers: Vec<OfPeer>,
}

struct Ours {
    ca: KeyKind,
    library: Library,
    /// In rounds without peers, which are many: a floor is compared to a hundredth.
    floor: Samples,
    issuance: Samples,
    beside_peers: Samples,
}

struct OfPeer {
    ca: KeyKind,
    peer: usize,
    issuance: Samples,
}

impl Comparison {
    fn run(
        material: &Material<'_>,
        peers: &[RefCell<Peer>],
        csr: KeyKind,
        limit: Duration,
    ) -> Result<Self> {
        let pairs = || ALL_KINDS.map(|ca| ALL_LIBRARIES.map(|library| (ca, library)));
        let issuance = |ca, library| {
            let issuance = Issuance::new(library, material, ca, csr)?;
            Ok::<_, anyhow::Error>(Contestant::timed(move || {
                black_box(issuance.issue()?);
                Ok(())
            }))
        };
        let mut beside_floors = Vec::new();
        for (ca, library) in pairs().into_iter().flatten() {
            let floor = Floor::new(library, material, ca, csr)?;
            beside_floors.push(Contestant::timed(move || {
                ensure!(floor.verify_and_sign(), "the floor fails");
                Ok(())
            }));
            beside_floors.push(issuance(ca, library)?);
        }
        run_rounds(&mut beside_floors, limit / 2)?;

        let mut beside_peers = Vec::new();
        for (ca, library) in pairs().into_iter().flatten() {
            beside_peers.push(issuance(ca, library)?);
        }
        let mut of_peers = Vec::new();
        for ca in ALL_KINDS {
            for (number, peer) in peers.iter().enumerate() {
                of_peers.push((ca, number, beside_peers.len()));
                beside_peers.push(Contestant::new(TURN_OF_A_PEER, move |count| {
                    Ok(peer.borrow_mut().issue(ca, csr, count)?.taken)
                }));
            }
        }
        run_rounds(&mut beside_peers, limit / 2)?;

        let samples = |of: &[Contestant<'_>], at: usize| of[at].samples().clone();
        Ok(Self {
            csr,
            ours: pairs()
                .into_iter()
                .flatten()
                .enumerate()
                .map(|(at, (ca, library))| Ours {
                    ca,
                    library,
                    floor: samples(&beside_floors, 2 * at),
                    issuance: samples(&beside_floors, 2 * at + 1),
                    beside_peers: samples(&beside_peers, at),
                })
                .collect(),
            peers: of_peers
                .into_iter()
                .map(|(ca, peer, at)| OfPeer {
                    ca,
                    peer,
                    issuance: samples(&beside_peers, at),
                })
                .collect(),
        })
    }

    /// How many rounds there were with floors, and with peers.
    fn rounds(&self) -> (usize, usize) {
        let of = |samples: fn(&Ours) -> &Samples| {
            let counts = self.ours.iter().map(|ours| samples(ours).clock.len());
            counts.min().unwrap_or(0)
        };
        (of(|ours| &ours.floor), of(|ours| &ours.beside_peers))
    }

    fn ours(&self, ca: KeyKind, library: Library) -> Option<&Ours> {
        self.ours
            .iter()
            .find(|ours| ours.ca == ca && ours.library == library)
    }

    fn peer(&self, ca: KeyKind, peer: usize) -> Option<&OfPeer> {
        self.peers.iter().find(|of| of.ca == ca && of.peer == peer)
    }
}

/// What the project promises, and whether it held in this run.
fn print_targets(comparisons: &[Comparison]) {
    println!("| target | library | asked | measured | by the clock | |");
    println!("|---|---|---|---|---|---|");
    let row = |what: &str, library: Library, asked: String, above: &Samples, below: &Samples| {
        let ratio = median_ratio(&above.processor, &below.processor);
        let by_clock = median_ratio(&above.clock, &below.clock);
        let library = library.name();
        print!("| {what} | {library} | {asked} | {ratio:.3} | {by_clock:.3} |");
        ratio
    };
    let verdict = |met: bool| println!(" {} |", if met { "met" } else { "**missed**" });
    let with = |csr: KeyKind| comparisons.iter().find(|comparison| comparison.csr == csr);
    for library in ALL_LIBRARIES {
        let ours = with(P256).and_then(|comparison| comparison.ours(P256, library));
        if let Some(Ours {
            issuance, floor, ..
        }) = ours
        {
            let what = "P-256 CA, P-256 CSR, to its floor";
            let ratio = row(what, library, format!("≤ {MOST_TO_FLOOR}"), issuance, floor);
            verdict(ratio <= MOST_TO_FLOOR);
        }
    }
    for promise in &PROMISES {
        for &library in promise.libraries {
            let both = with(promise.csr).and_then(|comparison| {
                let ours = comparison.ours(promise.our_ca, library)?;
                Some((ours, comparison.peer(promise.their_ca, 0)?))
            });
            if let Some((ours, theirs)) = both {
                let asked = format!("≥ {} × ours", promise.asked);
                let (theirs, ours) = (&theirs.issuance, &ours.beside_peers);
                let ratio = row(promise.what, library, asked, theirs, ours);
                verdict(ratio >= promise.asked);
            }
        }
    }
    println!();
}

/// Long enough that a garbage collection falls into each.
const TURN_OF_A_PEER: Duration = Duration::from_millis(50);
const MOST_TO_FLOOR: f64 = 1.05;

/// A peer takes so many times as long as we do.
struct Promise {
    what: &'static str,
    csr: KeyKind,
    our_ca: KeyKind,
    their_ca: KeyKind,
    asked: f64,
    libraries: &'static [Library],
}

const P256: KeyKind = KeyKind::EcdsaP256;
const P384: KeyKind = KeyKind::EcdsaP384;
const RSA: KeyKind = KeyKind::Rsa2048;

const PROMISES: [Promise; 6] = [
    Promise {
        what: "Go's time for a P-256 CSR",
        csr: P256,
        our_ca: P256,
        their_ca: P256,
        asked: 3.0,
        libraries: &ALL_LIBRARIES,
    },
    Promise {
        what: "Go's time for an RSA-2048 CSR",
        csr: RSA,
        our_ca: P256,
        their_ca: P256,
        asked: 4.0,
        libraries: &ALL_LIBRARIES,
    },
    // ring is slow at P-384, and known for it.
    Promise {
        what: "Go's time for a P-384 CSR",
        csr: P384,
        our_ca: P256,
        their_ca: P256,
        asked: 3.0,
        libraries: &[Library::AwsLcRs],
    },
    Promise {
        what: "Go's time for a P-384 CSR and a P-384 CA",
        csr: P384,
        our_ca: P384,
        their_ca: P384,
        asked: 3.0,
        libraries: &[Library::AwsLcRs],
    },
    // Istio makes itself an RSA-2048 root, and its agents an RSA-2048 key; ztunnel's key is P-256.
    Promise {
        what: "Istio's default CA (RSA-2048) for its agent's default CSR (RSA-2048)",
        csr: RSA,
        our_ca: P256,
        their_ca: RSA,
        asked: 15.0,
        libraries: &ALL_LIBRARIES,
    },
    Promise {
        what: "Istio's default CA (RSA-2048) for a P-256 CSR",
        csr: P256,
        our_ca: P256,
        their_ca: RSA,
        asked: 15.0,
        libraries: &ALL_LIBRARIES,
    },
];

fn print_comparisons(comparisons: &[Comparison], peers: &[RefCell<Peer>]) -> Result<()> {
    println!("### Everything\n");
    println!(
        "Microseconds of the processor for one certificate: median, and minimum in brackets.\n"
    );
    for (number, peer) in peers.iter().enumerate() {
        let mut peer = peer.borrow_mut();
        let count = 200;
        let taken = peer.issue(KeyKind::EcdsaP256, KeyKind::EcdsaP256, count)?;
        println!(
            "- Peer {}: {}. P-256 CA, P-256 CSR: {} allocations, {} bytes for a certificate.",
            number + 1,
            peer.description(),
            taken.allocations / u64::from(count),
            taken.bytes / u64::from(count),
        );
    }
    print!("\n| CSR | CA | library | floor | mesh-ca | × floor |");
    for number in 1..=peers.len() {
        print!(" peer {number} | × mesh-ca |");
    }
    println!(
        "\n|---|---|---|---|---|---|{}",
        "---|---|".repeat(peers.len())
    );
    for comparison in comparisons {
        for ours in &comparison.ours {
            print!(
                "| {} | {} | {} | {} | {} | {:.3} |",
                label(comparison.csr),
                label(ours.ca),
                ours.library.name(),
                times(&ours.floor),
                times(&ours.issuance),
                median_ratio(&ours.issuance.processor, &ours.floor.processor),
            );
            for number in 0..peers.len() {
                if let Some(theirs) = comparison.peer(ours.ca, number) {
                    print!(
                        " {} | {:.1} |",
                        times(&theirs.issuance),
                        median_ratio(&theirs.issuance.processor, &ours.beside_peers.processor),
                    );
                }
            }
            println!();
        }
    }
    let rounds = |of: fn((usize, usize)) -> usize| {
        let counts = comparisons.iter().map(|comparison| of(comparison.rounds()));
        counts.min().unwrap_or(0)
    };
    println!(
        "\nAt least {} rounds with floors and {} with peers for each kind of CSR.\n",
        rounds(|(floors, _)| floors),
        rounds(|(_, peers)| peers),
    );
    Ok(())
}

/// The other thread starts and ends with it.
const TURN_OF_A_READER: Duration = Duration::from_millis(10);

fn print_bundle(material: &Material<'_>, limit: Duration) -> Result<()> {
    const KIND: KeyKind = KeyKind::EcdsaP256;
    let issuance = Issuance::new(Library::Ring, material, KIND, KIND)?;
    let bundles = issuance.bundles();
    let fixed = bundles.current();
    let mut contestants = [
        Contestant::timed(|| {
            black_box(Arc::clone(&fixed));
            Ok(())
        }),
        Contestant::timed(|| {
            black_box(bundles.current());
            Ok(())
        }),
        Contestant::new(TURN_OF_A_READER, |count| {
            let done = AtomicBool::new(false);
            std::thread::scope(|threads| {
                threads.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        bundles.replace((*fixed).clone());
                    }
                });
                let stopwatch = Stopwatch::start();
                for _ in 0..count {
                    black_box(bundles.current());
                }
                let took = stopwatch.read();
                done.store(true, Ordering::Relaxed);
                Ok(took)
            })
        }),
    ];
    run_rounds(&mut contestants, limit.min(Duration::from_secs(5)))?;
    println!("### Taking the current bundle\n");
    println!("| reader | nanoseconds, median |");
    println!("|---|---|");
    let names = [
        "floor: one more owner of a bundle that never changes",
        "`current()`",
        "`current()`, while another thread replaces the bundle without pause",
    ];
    for (name, contestant) in names.into_iter().zip(&contestants) {
        println!(
            "| {name} | {:.0} |",
            1e3 * median(&contestant.samples().clock)
        );
    }
    Ok(())
}

fn times(samples: &Samples) -> String {
    let digits = |value: f64| usize::from(value < 1000.0);
    let (middle, least) = (median(&samples.processor), minimum(&samples.processor));
    format!("{middle:.*} ({least:.*})", digits(middle), digits(least))
}
