//! One check per duty of a backend, generic over the backend.
