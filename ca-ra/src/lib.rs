//! Registration authority: certificates signed by somebody else.
