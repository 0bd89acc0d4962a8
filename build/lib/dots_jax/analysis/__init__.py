"""What reads workdirs: comparisons of runs, their pictures, and predictions against measurements."""
