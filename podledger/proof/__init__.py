"""That nothing was changed: the certificate, what of a damaged log still holds, and notes kept elsewhere."""
