//! Our two binaries, driven the way a user drives them: flags in, lines of text and files out.

use std::ffi::OsStr;
use std::fmt::{self, Display};
use std::net::{SocketAddr, TcpListener};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::identity::Identity;
use crate::lab::Lab;
use crate::process::Process;
use crate::{http, wait, workspace};

pub(crate) const TRUST_DOMAIN: &str = "cluster.local";

/// Far above what either needs, for machines that do other things too.
const START_LIMIT: Duration = Duration::from_secs(20);

#[derive(Clone, Copy)]
pub(crate) enum Profile {
    Dev,
    Release,
}

/// The binaries under test.
#[derive(Clone)]
pub(crate) struct Binaries {
    ca_server: PathBuf,
    sds_agent: PathBuf,
    /// From a folder that the user named, and not from this checkout.
    pub(crate) are_given: bool,
}

impl Binaries {
    /// Those in the folder, or else what is built from this checkout.
    pub(crate) fn find(folder: Option<&Path>, profile: Profile) -> Result<Self> {
        let given = |folder| {
            Self::in_folder(folder).map(|binaries| Self {
                are_given: true,
                ..binaries
            })
        };
        folder.map_or_else(|| Self::build(profile), given)
    }

    fn build(profile: Profile) -> Result<Self> {
        let mut cargo = workspace::cargo(&["build", "--bin", "ca-server", "--bin", "sds-agent"]);
        let folder = match profile {
            Profile::Dev => "debug",
            Profile::Release => {
                cargo.arg("--release");
                "release"
            }
        };
        workspace::run(&mut cargo)?;
        Self::in_folder(&workspace::target_directory()?.join(folder))
    }

    /// With the agent as it is shipped: small, for this machine's usual target or another one.
    pub(crate) fn with_shipped_agent(&self, target: Option<&str>) -> Result<Self> {
        // By itself: in one build with others it would have their features of the crates that they share.
        let mut cargo =
            workspace::cargo(&["build", "--profile", "agent", "--package", "sds-agent"]);
        let mut folder = workspace::target_directory()?;
        if let Some(target) = target {
            cargo.args(["--target", target]);
            folder.push(target);
        }
        workspace::run(&mut cargo)?;
        Ok(Self {
            sds_agent: folder.join("agent").join("sds-agent"),
            ..self.clone()
        })
    }

    /// Of the agent's binary, in bytes.
    pub(crate) fn agent_size(&self) -> Result<u64> {
        let path = &self.sds_agent;
        let file = path
            .metadata()
            .with_context(|| format!("no binary {}", path.display()))?;
        Ok(file.len())
    }

    fn in_folder(folder: &Path) -> Result<Self> {
        let find = |name: &str| {
            let path = folder.join(name);
            path.canonicalize()
                .with_context(|| format!("no binary {}", path.display()))
        };
        Ok(Self {
            ca_server: find("ca-server")?,
            sds_agent: find("sds-agent")?,
            are_given: false,
        })
    }
}

/// One of the two workloads that every run is about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Workload {
    Cart,
    Checkout,
}

impl Workload {
    pub(crate) fn namespace(self) -> &'static str {
        "shop"
    }

    pub(crate) fn service_account(self) -> &'static str {
        match self {
            Self::Cart => "cart",
            Self::Checkout => "checkout",
        }
    }

    pub(crate) fn spiffe_id(self) -> String {
        format!(
            "spiffe://{TRUST_DOMAIN}/ns/{}/sa/{}",
            self.namespace(),
            self.service_account()
        )
    }
}

impl Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.namespace(), self.service_account()))
    }
}

/// A running ca-server.
pub(crate) struct Ca<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) root_certificate: PathBuf,
    pub(crate) fingerprint: String,
    binaries: &'a Binaries,
    /// Its data folder.
    pub(crate) data: PathBuf,
    command: Command,
    process: Process,
}

impl<'a> Ca<'a> {
    /// Returns once it says that it is ready.
    pub(crate) fn start(lab: &Lab, binaries: &'a Binaries) -> Result<Self> {
        Self::start_with(lab, binaries, &[])
    }

    /// As [`start`](Self::start), with more flags.
    pub(crate) fn start_with(lab: &Lab, binaries: &'a Binaries, extra: &[&OsStr]) -> Result<Self> {
        let data = lab.path("ca");
        let mut command = Command::new(&binaries.ca_server);
        command
            .args(["--listen", &free_address()?.to_string()])
            .args(["--admin-listen", "127.0.0.1:0"])
            .args(["--trust-domain", TRUST_DOMAIN])
            .arg("--data-dir")
            .arg(&data)
            .args(extra);
        let mut process = lab.start("ca-server", &mut command)?;
        let address = address(&process.printed("serving", START_LIMIT)?)?;
        let admin = address_of(&mut process, "admin")?;
        let fingerprint = process.printed("root fingerprint", START_LIMIT)?;
        let root_certificate = data.join("root-cert.pem");
        process.answers(admin, "/readyz", START_LIMIT)?;
        Ok(Self {
            address,
            admin,
            root_certificate,
            fingerprint,
            binaries,
            data,
            command,
            process,
        })
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Starts it again, on the same address and with what it had. Returns once it says that it is ready.
    pub(crate) fn start_again(&mut self, lab: &Lab) -> Result<()> {
        self.process = lab.start("ca-server-again", &mut self.command)?;
        self.admin = address_of(&mut self.process, "admin")?;
        self.process.answers(self.admin, "/readyz", START_LIMIT)
    }

    /// Takes a step towards another root, or tells where it stands.
    pub(crate) fn rotate(&self, step: &str) -> Result<String> {
        let mut command = workspace::command(&self.binaries.ca_server);
        command
            .args(["rotate", step])
            .arg("--data-dir")
            .arg(&self.data);
        workspace::output(&mut command)
    }

    pub(crate) fn token(&self, workload: Workload, extra: &[&str]) -> Result<String> {
        let mut command = workspace::command(&self.binaries.ca_server);
        command
            .args(["token", "--namespace", workload.namespace()])
            .args(["--service-account", workload.service_account()])
            .args(extra)
            .arg("--data-dir")
            .arg(&self.data);
        let printed = workspace::output(&mut command)?;
        let token = printed.trim_end();
        if token.is_empty() || token.contains(char::is_whitespace) {
            bail!("`ca-server token` must print one token and nothing else, printed: {printed:?}");
        }
        Ok(token.to_owned())
    }

    pub(crate) fn check(&mut self) -> Result<()> {
        self.process.check()
    }
}

/// A running sds-agent.
pub(crate) struct Agent {
    pub(crate) workload: Workload,
    pub(crate) socket: PathBuf,
    pub(crate) output: PathBuf,
    pub(crate) process: Process,
    admin: SocketAddr,
    command: Command,
}

impl Agent {
    /// Returns as soon as its socket is open; its first certificate may still be on the way.
    pub(crate) fn start(lab: &Lab, ca: &Ca<'_>, workload: Workload, ttl: Duration) -> Result<Self> {
        Self::start_with(lab, ca, workload, ttl, &[])
    }

    /// As [`start`](Self::start), with more flags.
    pub(crate) fn start_with(
        lab: &Lab,
        ca: &Ca<'_>,
        workload: Workload,
        ttl: Duration,
        extra: &[&OsStr],
    ) -> Result<Self> {
        let name = format!("{}.token", workload.service_account());
        let token = lab.write(&name, ca.token(workload, &[])?)?;
        let address = ca.address.to_string();
        let mut flags: Vec<&OsStr> = vec![
            "--ca-addr".as_ref(),
            address.as_ref(),
            "--ca-root".as_ref(),
            ca.root_certificate.as_ref(),
            "--token-file".as_ref(),
            token.as_ref(),
        ];
        flags.extend(extra);
        Self::start_elsewhere(lab, ca.binaries, workload, ttl, &flags)
    }

    /// With a CA that is not ours: the flags say where that is, and how it is asked.
    pub(crate) fn start_elsewhere(
        lab: &Lab,
        binaries: &Binaries,
        workload: Workload,
        ttl: Duration,
        flags: &[&OsStr],
    ) -> Result<Self> {
        let name = format!("agent-{}", workload.service_account());
        let output = lab.path(format!("{name}-files"));
        let mut command = Command::new(&binaries.sds_agent);
        command
            .args(["--namespace", workload.namespace()])
            .args(["--service-account", workload.service_account()])
            .args(["--trust-domain", TRUST_DOMAIN])
            .args(["--secret-ttl", &format!("{}s", ttl.as_secs())])
            .args(["--admin-listen", "127.0.0.1:0"])
            .arg("--socket")
            .arg(lab.path(format!("{name}.sock")))
            .arg("--output-dir")
            .arg(&output)
            .args(flags);
        let mut process = lab.start(&name, &mut command)?;
        let socket = process.printed("serving", START_LIMIT)?.into();
        let admin = address_of(&mut process, "admin")?;
        Ok(Self {
            workload,
            socket,
            output,
            process,
            admin,
            command,
        })
    }

    /// Starts it again after it was killed, on the same socket. Returns as soon as that is open.
    pub(crate) fn start_again(&mut self, lab: &Lab) -> Result<()> {
        self.launch_again(lab)?;
        self.announced()
    }

    /// As [`start_again`](Self::start_again), and returns at once. **Before it is asked anything:**
    /// [`announced`](Self::announced).
    pub(crate) fn launch_again(&mut self, lab: &Lab) -> Result<()> {
        let name = format!("agent-{}-again", self.workload.service_account());
        self.process = lab.start(&name, &mut self.command)?;
        Ok(())
    }

    /// Returns when it has said where it answers.
    pub(crate) fn announced(&mut self) -> Result<()> {
        self.admin = address_of(&mut self.process, "admin")?;
        Ok(())
    }

    /// Tells it to renew now.
    pub(crate) fn renew(&self) -> Result<()> {
        self.process.signal("HUP")
    }

    /// A page of its admin listener.
    pub(crate) fn page(&self, path: &str) -> Result<String> {
        Ok(http::get(self.admin, path)?.body)
    }

    /// One whose token the CA does not know: it never serves anything.
    pub(crate) fn start_stranger(
        lab: &Lab,
        ca: &Ca<'_>,
        workload: Workload,
        cluster: &str,
    ) -> Result<Process> {
        let token = lab.write("stranger.token", "not.a.token")?;
        let mut command = Command::new(&ca.binaries.sds_agent);
        command
            .args(["--ca-addr", &ca.address.to_string()])
            .args(["--namespace", workload.namespace()])
            .args(["--service-account", workload.service_account()])
            .args(["--trust-domain", TRUST_DOMAIN])
            .args(["--cluster-id", cluster])
            .args(["--admin-listen", "127.0.0.1:0"])
            .arg("--ca-root")
            .arg(&ca.root_certificate)
            .arg("--token-file")
            .arg(&token)
            .arg("--socket")
            .arg(lab.path("stranger.sock"));
        lab.start("stranger", &mut command)
    }

    /// The identity it has put into its output folder, once it says that it serves one.
    pub(crate) fn first_identity(&mut self) -> Result<Identity> {
        self.process.answers(self.admin, "/readyz", START_LIMIT)?;
        self.identity()
    }

    /// The identity that is in its output folder now.
    pub(crate) fn identity(&mut self) -> Result<Identity> {
        self.process.check()?;
        Identity::read(&self.output)
    }

    /// Waits until its output folder holds another certificate than this one.
    pub(crate) fn next_identity(&mut self, than: &Identity, limit: Duration) -> Result<Identity> {
        let what = format!("new certificate of {}", self.workload);
        wait::until(&what, limit, || {
            let now = self.identity()?;
            Ok(if now.leaf.serial == than.leaf.serial {
                ControlFlow::Continue(format!("it still has serial {}", now.leaf.serial))
            } else {
                ControlFlow::Break(now)
            })
        })
    }

    pub(crate) fn check(&mut self) -> Result<()> {
        self.process.check()
    }
}

/// An address that a program can be given again after it has ended.
///
/// Not one that the system would give away: those are also the ports that connections come from, and
/// one that asks again and again for a program that is down could come from the very port it asks for.
pub(crate) fn free_address() -> Result<SocketAddr> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 8_000).unwrap_or_default();
    for _ in 0..8_000 {
        let offset = (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 8_000;
        let address = SocketAddr::from(([127, 0, 0, 1], 22_000 + offset));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no free port below those that the system gives away")
}

fn address_of(process: &mut Process, label: &str) -> Result<SocketAddr> {
    address(&process.printed(label, START_LIMIT)?)
}

fn address(text: &str) -> Result<SocketAddr> {
    text.parse()
        .with_context(|| format!("not an address: {text:?}"))
}
