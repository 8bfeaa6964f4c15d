"""Methods of unlearning: ours, and every baseline it is measured against."""
