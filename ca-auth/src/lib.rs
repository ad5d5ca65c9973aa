//! Who is calling a mesh CA, and for which names may they ask.
