"""Files and tables → documents → tokens → shards → batches, each a pure function of the last."""
