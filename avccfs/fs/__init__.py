"""What the mount shows and does. Knows neither pyfuse3 nor trio."""
