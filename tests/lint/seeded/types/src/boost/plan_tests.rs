struct Once;
