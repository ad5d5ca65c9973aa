//! `ca-server config`: what is in force, and whether a server would start with it.

use crate::app::AppError;
use crate::args::Args;
use crate::authentication;
use crate::authority::{plugged, registration};
use crate::config::{Config, RootFiles, Whose};

/// Fails if a value cannot be meant, or a file that is named keeps a server from starting. **What only a start can tell is not looked
/// at**: addresses, the data folder, the audit log, the cluster, and another CA.
pub(super) fn check(args: Args) -> anyhow::Result<()> {
    let config = Config::try_from(args)?;
    // Whoever follows a file needs a runtime, also where that is over at once.
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let _inside = runtime.enter();
    Ok(check_files(&config)?)
}

/// In the order of a start, by what reads them there.
fn check_files(config: &Config) -> Result<(), AppError> {
    authentication::authorizer(config.authentication.policy.as_ref(), &config.trust_domain)?;
    match &config.whose {
        Whose::Own(upstream) => {
            let folder = &config.root_ca_dir;
            let plugged = plugged::follow_operators(folder, config.keeps_own_ca_in_cacerts())?;
            if plugged.is_some() && upstream.is_some() {
                return Err(AppError::TwoCas(folder.clone()));
            }
        }
        Whose::Signers(signers) => check_roots(signers.signer.root_files())?,
    }
    check_roots(config.listener_signer.as_ref().map(|signer| &signer.roots))?;
    config.serving.plan.check_files()?;
    Ok(())
}

fn check_roots(files: Option<&RootFiles>) -> Result<(), AppError> {
    if let Some(files) = files {
        registration::follow(files)?;
    }
    Ok(())
}
