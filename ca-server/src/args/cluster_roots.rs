//! What was typed about the CA's Secret, about who leads, and about where in the cluster roots are published.

/// The CA in the cluster, and its roots.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Kubernetes: the CA's Secret and its roots")]
pub(crate) struct ClusterRootsArgs {
    /// Keep a new self-signed CA in the Secret `cacerts`. One that is in `istio-ca-secret` is used in any case.
    #[arg(long, env = "USE_CACERTS_FOR_SELF_SIGNED_CA", value_name = "BOOL", default_value_t = false, action = clap::ArgAction::Set)]
    pub(crate) cacerts_for_self_signed_ca: bool,

    /// The Lease whose holder rotates the root and publishes the roots. All replicas sign.
    #[arg(long, value_name = "NAME", default_value = "mesh-ca")]
    pub(crate) lease_name: String,

    /// The name of this pod: who holds the Lease, for people.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub(crate) pod_name: Option<String>,

    /// Publish the roots in the cluster.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub(crate) publish_roots: bool,

    /// The ConfigMap that has the roots, in each selected namespace.
    #[arg(
        long,
        env = "PILOT_CA_CERT_CONFIGMAP",
        value_name = "NAME",
        default_value = "istio-ca-root-cert"
    )]
    pub(crate) root_config_map: String,

    /// Publish revocation lists too.
    #[arg(long, env = "PILOT_ENABLE_CA_CRL", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub(crate) publish_crl: bool,

    /// The ConfigMap that has them.
    #[arg(
        long,
        env = "PILOT_CRL_CONFIGMAP",
        value_name = "NAME",
        default_value = "istio-ca-crl"
    )]
    pub(crate) crl_config_map: String,

    /// Namespaces with such labels get the ConfigMaps: `mesh=on,env in (a,b),!legacy`. May be given several times: one that fits is
    /// enough. Default: all but kube-public, kube-node-lease and local-path-storage.
    #[arg(long, value_name = "SELECTOR")]
    pub(crate) configmap_namespace_selector: Vec<String>,

    /// Publish a ClusterTrustBundle instead of ConfigMaps.
    #[arg(long, env = "ENABLE_CLUSTER_TRUST_BUNDLE_API", value_name = "BOOL", default_value_t = false, action = clap::ArgAction::Set)]
    pub(crate) cluster_trust_bundle: bool,

    /// MutatingWebhookConfigurations whose `caBundle` is to be our roots.
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub(crate) mutating_webhook_config: Vec<String>,

    /// ValidatingWebhookConfigurations whose `caBundle` is to be our roots.
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub(crate) validating_webhook_config: Vec<String>,

    /// The same for all webhook configurations with such labels: `istio.io/rev=default`.
    #[arg(long, value_name = "SELECTOR")]
    pub(crate) webhook_config_selector: Option<String>,
}
